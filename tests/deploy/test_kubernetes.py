"""What runs on Kubernetes is told what it reads, listens where it is asked, and does what it is told to."""

import importlib
import re

import pytest
from deploy.kustomization import OVERLAYS, SERVICES, Manifests, Pod, manifests, secrets_of
from pydantic_settings import BaseSettings

from aragora.billing import token_keys
from aragora.chassis import probes
from aragora.chassis.app import serve
from aragora.contracts.topology import ACCOUNTS
from aragora_nats import cli as nats_cli
from billing.settings import CATALOGS, price_variable, read_catalog
from notifier.lanes import DRAIN_SECONDS as LANES_DRAIN_SECONDS

TOKEN_LIFETIMES = {"ARAGORA_JWT_EXPIRY_HOURS", "ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS"}
TOKENS = {*token_keys._VARIABLES, *TOKEN_LIFETIMES}
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"
PYTHONS = "PYTHON_CPU_COUNT"
SET_BY_THE_IMAGE = {"ARAGORA_HOST", "ARAGORA_PORT", "ARAGORA_WORKER_PORT"}
SECRET = re.compile(r"PASSWORD|SECRET|SEALING|PRIVATE_KEY|SERVICE_KEYS|DATABASE_URL|_WEBHOOK$")


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Manifests:
    return manifests(request.param)


def settings_of(service: str) -> type[BaseSettings]:
    found: type[BaseSettings] = importlib.import_module(f"{service}.settings").Settings
    return found


def aliases(service: str, *, required: bool = False) -> set[str]:
    fields = settings_of(service).model_fields.values()
    return {str(field.alias) for field in fields if field.alias and (field.is_required() or not required)}


def readable(service: str) -> set[str]:
    plans = {plan.plan for name in CATALOGS for plan in read_catalog(name).plans} if service == "billing" else set()
    return aliases(service) | TOKENS | {TRACES, PYTHONS} | {price_variable(plan) for plan in plans}


def told(rendered: Manifests, pod: Pod) -> set[str]:
    return {*rendered.settings(pod), *secrets_of(pod)}


def required(pod: Pod) -> set[str]:
    needed = aliases(pod.service, required=True) | {"NATS_USER"}
    if pod.kind == "Deployment":
        needed |= {"NATS_URL", "NATS_PASSWORD"}
    if pod.labels["app.kubernetes.io/component"] == "api":
        needed |= {"ARAGORA_JWT_SECRET", "ARAGORA_SERVICE_KEYS", "ARAGORA_DRAIN_SECONDS"}
    return needed


def test_each_process_and_each_job_is_there(rendered: Manifests):
    names = {pod.name for pod in rendered.ours()}
    assert names == {f"{service}-{what}" for service in SERVICES for what in ("api", "worker", "migrate")}
    assert all(pod.name.startswith(f"{pod.service}-") for pod in rendered.ours())


def test_every_variable_is_one_that_the_service_reads(rendered: Manifests):
    for pod in rendered.ours():
        assert told(rendered, pod) - readable(pod.service) == set(), pod.name
        assert told(rendered, pod) & SET_BY_THE_IMAGE == set(), pod.name


def test_every_variable_that_a_service_needs_is_there(rendered: Manifests):
    for pod in rendered.ours():
        given = {name for name, source in secrets_of(pod).items() if not source.get("optional")}
        assert required(pod) - {*rendered.settings(pod), *given} == set(), pod.name


def test_values_are_ones_that_the_settings_take(rendered: Manifests, monkeypatch: pytest.MonkeyPatch):
    for pod in rendered.ours():
        with monkeypatch.context() as environment:
            for name in secrets_of(pod):
                environment.setenv(name, "p" * 64)
            for name, value in rendered.settings(pod).items():
                environment.setenv(name, value)
            settings_of(pod.service)()


def test_each_service_is_its_own_user_of_the_bus(rendered: Manifests):
    users = {pod.service: rendered.settings(pod)["NATS_USER"] for pod in rendered.ours()}
    assert users == {service: service for service in SERVICES}
    assert set(users.values()) < {account.name for account in ACCOUNTS}


def test_secrets_come_by_reference_and_only_its_own(rendered: Manifests):
    for pod in rendered.ours():
        assert [name for name in rendered.settings(pod) if SECRET.search(name)] == []
        sources = {source["name"] for source in secrets_of(pod).values()}
        assert sources <= {"platform", pod.service, f"{pod.service}-database"}, pod.name
    # Who only verifies has nothing to sign with, where tokens are signed with a key pair.
    signing = {pod.name for pod in rendered.ours() if "ARAGORA_JWT_PRIVATE_KEY" in secrets_of(pod)}
    assert signing == {"auth-api"}


def test_secrets_that_are_referred_to_are_those_that_are_made():
    rendered = manifests("dev")
    keys = {one["metadata"]["name"]: set(one["data"]) for one in rendered.of("Secret")}
    for pod in rendered.pods():
        for source in secrets_of(pod).values():
            assert source.get("optional") or source["key"] in keys[source["name"]], pod.name


def test_arguments_are_commands(rendered: Manifests):
    for pod in rendered.ours():
        app = importlib.import_module(f"{pod.service}.cli").app
        commands = {each.callback.__name__ for each in app.registered_commands}
        (argument,) = pod.container["args"]
        assert argument in commands, pod.name
        assert argument == pod.labels["app.kubernetes.io/component"]
    topology = next(pod for pod in rendered.pods("Job") if pod.name == "nats-topology")
    group, command, option, replicas = topology.container["args"]
    assert group in {each.name for each in nats_cli.app.registered_groups}
    assert command in {each.name for each in nats_cli.topology_app.registered_commands}
    assert (option, int(replicas)) == ("--replicas", rendered.named("StatefulSet", "nats")["spec"]["replicas"])


def test_probes_ask_what_is_answered_where_it_listens(rendered: Manifests):
    routes = {route.path for route in probes.router.routes}  # type: ignore[attr-defined]
    for pod in rendered.pods("Deployment"):
        container = pod.container
        assert container["ports"] == [{"name": "http", "containerPort": 8000}]
        asked = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert all(each["port"] == "http" and each["path"] in routes for each in asked.values())
        assert asked["readinessProbe"]["path"] == "/readyz"
        assert container["readinessProbe"]["timeoutSeconds"] > probes.READINESS_SECONDS


def test_who_is_stopped_has_the_time_that_it_takes(rendered: Manifests):
    grace_seconds = (serve.__kwdefaults__ or {})["grace_seconds"]
    for pod in rendered.pods("Deployment"):
        drain_seconds = int(rendered.settings(pod)["ARAGORA_DRAIN_SECONDS"])
        assert drain_seconds + grace_seconds + LANES_DRAIN_SECONDS < pod.spec["terminationGracePeriodSeconds"]
        assert "lifecycle" not in pod.container, "the API itself says for a while that it is not ready"


def test_nobody_is_more_than_it_must_be(rendered: Manifests):
    for pod in rendered.pods():
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False, "else Services become variables"
        assert rendered.named("ServiceAccount", pod.spec["serviceAccountName"])["automountServiceAccountToken"] is False
        assert pod.spec["securityContext"]["runAsNonRoot"]
        assert pod.spec["securityContext"]["runAsUser"] == (999 if pod.name == "postgres" else 10001)
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod.container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert pod.container["resources"]["limits"].keys() == {"memory"}
