"""The ingress sends every route to its own service, and lets nothing else in."""

import importlib

import pytest
from deploy.kustomization import OVERLAYS, SERVICES, Manifests, manifests

from aragora.chassis.app import MAX_BODY_BYTES
from aragora.chassis.probes import PROBES

NGINX = "nginx.ingress.kubernetes.io"
STREAM = "/api/subscription/alerts/{user_id}/stream"


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Manifests:
    return manifests(request.param)


def routes() -> list[tuple[str, str]]:
    """Every route of every API, with whose it is."""
    return [
        (route.path, service)
        for service in SERVICES
        for router in importlib.import_module(f"{service}.main").routers
        for route in router.routes
    ]


def rules(rendered: Manifests) -> list[tuple[str, str, str]]:
    """(path, kind, service) of every rule."""
    found = []
    for ingress in rendered.of("Ingress"):
        (host,) = ingress["spec"]["rules"]
        for each in host["http"]["paths"]:
            backend = each["backend"]["service"]
            assert backend["port"] == {"name": "http"}
            found.append((each["path"], each["pathType"], backend["name"]))
    return found


def leads_to(rendered: Manifests, path: str) -> list[str]:
    """Where a request goes: an exact rule first, then the longest prefix, element by element."""
    matching = [
        (kind == "Exact", len(prefix), service)
        for prefix, kind, service in rules(rendered)
        if path == prefix or (kind == "Prefix" and path.startswith(prefix.rstrip("/") + "/"))
    ]
    return [max(matching)[2]] if matching else []


def test_every_route_is_let_in_and_goes_to_its_own_service(rendered: Manifests):
    assert len(routes()) > 100
    assert {path: leads_to(rendered, path) for path, _ in routes()} == {path: [service] for path, service in routes()}


def test_every_rule_has_a_route_and_is_there_once(rendered: Manifests):
    prefixes = [prefix for prefix, _, _ in rules(rendered)]
    assert len(prefixes) == len(set(prefixes))
    for prefix, _, service in rules(rendered):
        owners = {owner for path, owner in routes() if path == prefix or path.startswith(prefix + "/")}
        assert owners == {service}, prefix


def test_probes_and_metrics_are_not_for_the_world(rendered: Manifests):
    assert [path for path in (*PROBES, "/", "/docs", "/openapi.json") if leads_to(rendered, path)] == []


def test_bodies_are_let_in_as_large_as_services_take_them(rendered: Manifests):
    annotations = rendered.named("Ingress", "aragora")["metadata"]["annotations"]
    assert annotations[f"{NGINX}/proxy-body-size"] == f"{MAX_BODY_BYTES // 1024**2}m"


def test_the_stream_of_alerts_is_not_held_back(rendered: Manifests):
    streams = rendered.named("Ingress", "aragora-streams")
    prefixes = [each["path"] for each in streams["spec"]["rules"][0]["http"]["paths"]]
    assert any(STREAM.startswith(prefix + "/") for prefix in prefixes)
    assert streams["metadata"]["annotations"][f"{NGINX}/proxy-buffering"] == "off"
    assert STREAM in {path for path, _ in routes()}


def test_production_speaks_tls_only():
    for ingress in manifests("production").of("Ingress"):
        (tls,) = ingress["spec"]["tls"]
        assert tls["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]
        assert ingress["metadata"]["annotations"][f"{NGINX}/force-ssl-redirect"] == "true"
