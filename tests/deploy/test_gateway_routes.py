"""The gateway sends every route of every service to that service, and nothing else to any of them."""

import re

import pytest
from deploy.compose_file import DOCKER, SERVICES, is_sent, paths_of
from every_route import applications, routes_of

from aragora.chassis.probes import PROBES

DOCUMENTS = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
"""Of one service each. The gateway has pages of its own, and leads to /openapi.json of each."""
ROUTES = {
    service: sorted({path for _, path in routes_of(app)} - PROBES - DOCUMENTS)
    for service, app in applications().items()
    if service in SERVICES
}


def receivers(path: str) -> list[str]:
    return [service for service in SERVICES if is_sent(path, paths_of(service))]


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_reaches_its_own_service_and_no_other(service: str):
    assert len(ROUTES[service]) > 10
    astray = {path: receivers(path) for path in ROUTES[service] if receivers(path) != [service]}
    assert astray == {}, "say in deploy/docker/gateway/Caddyfile whose it is"


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_sent_to_a_service_that_has_no_such_route(service: str):
    idle = [matcher for matcher in paths_of(service) if not any(is_sent(path, [matcher]) for path in ROUTES[service])]
    assert idle == []


@pytest.mark.parametrize("path", sorted(PROBES | DOCUMENTS))
def test_what_is_for_operators_does_not_go_through(path: str):
    assert receivers(path) == []


def test_each_service_is_sent_to_where_it_answers():
    text = (DOCKER / "gateway/Caddyfile").read_text()
    sent = re.findall(r"handle @(\w+) \{\n\t\timport to (\w+)\n", text)
    assert sent == [(service, service) for service in SERVICES]
    assert f"({'|'.join(SERVICES)})" in text, "the documents of all of them are shown"
    page = (DOCKER / "gateway/pages/docs.html").read_text()
    assert all(f'"{service}"' in page for service in SERVICES)
