"""docker-compose.yml tells every process what it reads, nothing that it does not, and no secret of anybody else's."""

import importlib
import re

import pytest
from deploy.compose_file import (
    DOCKER,
    JOBS,
    PROCESSES,
    ROOT,
    SERVICES,
    asks_for,
    composition,
    containers,
    names_in,
    told,
)
from pydantic_settings import BaseSettings

from aragora.billing import token_keys
from aragora.contracts.topology import ACCOUNTS
from billing.settings import CATALOGS, price_variable, read_catalog

TOKENS = {*token_keys._VARIABLES, "ARAGORA_JWT_EXPIRY_HOURS"}
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"
SET_BY_THE_IMAGE = {"ARAGORA_HOST", "ARAGORA_PORT", "ARAGORA_WORKER_PORT"}
OF_AUTH_ALONE = {"ARAGORA_JWT_PRIVATE_KEY", "ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS"}
MUTE = ("nats-exporter", "otel-collector", "jaeger")
"""Their images hold nothing that could ask them how they are."""
SHARED_BY_ALL = {"ARAGORA_JWT_SECRET", "ARAGORA_SERVICE_KEYS"}
"""The secret that signs tokens, with HS256, and digests of keys."""


def fields_of(service: str) -> dict[str, bool]:
    """What a service can be told, and whether it must be."""
    settings: type[BaseSettings] = importlib.import_module(f"{service}.settings").Settings
    return {str(one.alias): one.is_required() for one in settings.model_fields.values() if one.alias}


def readable(service: str) -> set[str]:
    """What somebody who starts a process of the service can say."""
    found = {*fields_of(service), *TOKENS, TRACES}
    if service == "auth":
        return found | OF_AUTH_ALONE
    return (found | sold() if service == "billing" else found) - OF_AUTH_ALONE


def sold() -> set[str]:
    """A variable for each plan of the catalogs that costs something."""
    plans = [plan for name in CATALOGS for plan in read_catalog(name).plans]
    return {price_variable(plan.plan) for plan in plans if plan.price_usd_per_month > 0}


def test_every_container_is_known():
    assert {*PROCESSES, *JOBS, "postgres", "nats", "gateway"} <= containers().keys()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_told_what_it_reads_and_nothing_else(service: str):
    api, worker, job = (told(f"{service}-{role}") for role in ("api", "worker", "migrate"))
    assert api == worker, "one process is not told what the other is"
    assert {*api, *job} - readable(service) == set(), "it does not read that"
    assert readable(service) - SET_BY_THE_IMAGE - {*api, *job} == set(), "it can be told, and nobody can here"
    required = {name for name, must in fields_of(service).items() if must}
    for given in (api, job):
        assert {name for name in required if not given.get(name)} == set()
    assert all(given["DATABASE_URL"] == api["DATABASE_URL"] for given in (worker, job))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_itself_in_its_database_and_on_the_bus(service: str):
    given = told(f"{service}-api")
    assert str(given["DATABASE_URL"]).startswith(
        f"postgresql://aragora_{service}:${{POSTGRES_PASSWORD_{service.upper()}:?"
    )
    assert given["NATS_USER"] == service
    assert names_in(given["NATS_PASSWORD"]) == {f"NATS_PASSWORD_{service.upper()}"}


def test_nobody_has_a_secret_of_others():
    holders: dict[str, set[str]] = {}
    for name in containers():
        for variable in names_in(told(name).values()) & asks_for(composition()):
            holders.setdefault(variable, set()).add(name)
    for service in SERVICES:
        own = {name for name in containers() if name.startswith(f"{service}-")}
        assert holders[f"POSTGRES_PASSWORD_{service.upper()}"] == own | {"postgres"}
        assert holders[f"NATS_PASSWORD_{service.upper()}"] == own - {f"{service}-migrate"} | {"nats"}
    assert holders["POSTGRES_PASSWORD"] == {"postgres"}
    assert holders["NATS_PASSWORD_OPERATOR"] == {"nats", "nats-topology"}
    assert holders["ARAGORA_OPERATOR_PASSWORD"] == {"auth-migrate"}
    assert holders["AUTH_SEALING_KEYS"] == {"auth-migrate", "auth-api", "auth-worker"}
    assert holders["NOTIFIER_SEALING_KEYS"] == {"notifier-migrate", "notifier-api", "notifier-worker"}
    assert all(holders[shared] == set(PROCESSES) for shared in SHARED_BY_ALL)


def test_the_bus_is_told_a_password_for_everybody():
    assert {f"NATS_PASSWORD_{account.name.upper()}" for account in ACCOUNTS} <= told("nats").keys()
    read = "".join(file.read_text() for file in (ROOT / "deploy/nats").glob("*.conf") if file.name != "cluster.conf")
    assert set(re.findall(r"\$(NATS_\w+)", read)) <= told("nats").keys()
    accounts = (ROOT / "deploy/nats/accounts.conf").read_text()
    assert set(re.findall(r"\$(NATS_\w+)", accounts)) == told("nats").keys() - {"NATS_JETSTREAM_KEY"}


@pytest.mark.parametrize("name", containers())
def test_a_container_may_do_little_and_starts_again(name: str):
    container = containers()[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["restart"] == ("on-failure:10" if name in JOBS else "unless-stopped")
    assert container["deploy"]["resources"]["limits"]["memory"]
    assert container["logging"]["options"]["max-size"], "a disk is not for logs alone"
    assert "privileged" not in container
    assert "test" in container["healthcheck"] or name in (*JOBS, *MUTE)


def test_only_the_gateway_is_reached_from_outside_and_only_from_this_machine():
    published = {name: container["ports"] for name, container in containers().items() if "ports" in container}
    here = re.compile(r"(127\.0\.0\.1|\$\{ARAGORA_BIND:-127\.0\.0\.1\}):")
    assert all(here.match(port) for ports in published.values() for port in ports)
    profiles = {name for name, container in containers().items() if "profiles" in container}
    assert published.keys() - profiles == {"gateway"}


def test_whoever_needs_no_way_out_has_none():
    internal = {name for name, network in composition()["networks"].items() if network and network.get("internal")}
    assert internal == {"apis", "data"}
    reach = {name: set(container["networks"]) for name, container in containers().items()}
    locked_in = {"postgres", "nats", *JOBS, "auth-api", "auth-worker", "metering-api", "metering-worker"}
    assert {name for name in locked_in if not reach[name] <= internal} == set()
    assert "data" not in reach["gateway"], "it speaks to the APIs, and to no server behind them"
    for service in SERVICES:
        assert containers()[f"{service}-api"]["networks"]["apis"]["aliases"] == [service]
        assert "apis" not in reach[f"{service}-worker"]


def test_what_is_run_is_what_is_built():
    stages = set(re.findall(r"^FROM runtime AS (\S+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    built = {}
    for name, container in containers().items():
        if "build" in container:
            built[name] = container["build"]["args"]["SERVICE"]
            image = "nats-operator" if built[name] == "nats" else built[name]
            assert container["image"] == f"aragora/{image}:${{ARAGORA_VERSION:-latest}}"
    assert set(built.values()) == stages
    assert built.keys() >= {*PROCESSES, *JOBS}
    assert all(name.startswith(f"{built[name]}-") for name in (*PROCESSES, *JOBS))
    assert all(
        (ROOT / f"requirements/images/{stage}.txt").is_file() for stage in {*stages, "build"} - {"stripe-simulator"}
    )


def test_processes_wait_for_their_schema_and_for_the_streams():
    for service in SERVICES:
        for role in ("api", "worker"):
            waits = containers()[f"{service}-{role}"]["depends_on"]
            assert waits.keys() == {f"{service}-migrate", "nats-topology"}
            assert all(one == {"condition": "service_completed_successfully"} for one in waits.values())
