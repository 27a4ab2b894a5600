"""The committed documents are what the code says now."""

import json
import re
from pathlib import Path

import pytest
from contracts.export import ACCOUNTS, API, ROOT, SCHEMAS, TIERS, documents
from faststream.nats import NatsBroker
from faststream.nats.subscriber.usecases.basic import LogicSubscriber

from aragora.contracts import topology
from aragora.contracts.alerts import UNREAD_ALERTS
from aragora.contracts.contacts import READ_CONTACTS
from aragora.contracts.messages import READ_MESSAGE
from metering.handlers import subscribe

DOCUMENTS = documents()
OPENAPI = sorted(API.glob("*.openapi.json"))
FOR_WHOEVER_HAS_NO_CREDENTIAL_YET = {
    f"/api/auth/{name}"
    for name in ("register", "login", "refresh", "verify-email", "forgot-password", "reset-password")
} | {
    "/api/webhooks/stripe",  # Stripe's signature is its credential
    "/api/notifications/unsubscribe/{token}",  # the mail's signature is
}


@pytest.mark.parametrize("path", sorted(DOCUMENTS), ids=lambda path: path.name)
def test_nothing_has_drifted(path: Path):
    committed = path.read_text(encoding="utf-8") if path.exists() else "absent"
    assert committed == DOCUMENTS[path], f"{path.relative_to(ROOT)} is not what the code says: run `make api-docs`"


def test_no_document_outlives_what_it_describes():
    assert {*SCHEMAS.glob("*.json"), *API.glob("*.json"), ACCOUNTS, TIERS} == DOCUMENTS.keys()


@pytest.mark.parametrize("path", sorted(API.glob("*.json")), ids=lambda path: path.name)
def test_every_reference_leads_somewhere(path: Path):
    document = json.loads(path.read_text())

    def look(node: object) -> None:
        if isinstance(node, list):
            for item in node:
                look(item)
        elif isinstance(node, dict):
            for name, value in node.items():
                if name == "$ref":
                    found = document
                    for part in value.removeprefix("#/").split("/"):
                        found = found[part]
                else:
                    look(value)

    look(document)


def received(document: str) -> set[str]:
    """The addresses that a service listens to, with wildcards for their parameters."""
    found = json.loads((API / document).read_text())
    addresses = {
        found["channels"][operation["channel"]["$ref"].rsplit("/", 1)[1]]["address"]
        for operation in found["operations"].values()
        if operation["action"] == "receive"
    }
    return {re.sub(r"\{\w+\}", "*", address) for address in addresses}


def test_the_bus_document_tells_what_metering_listens_to():
    questions = {f"rpc.metering.{verb}" for verb in topology.LIMIT_VERBS}
    followed = set(topology.METERING_ENTITLEMENTS.filter_subjects)
    erasures = set(topology.METERING_ERASURES.filter_subjects)
    revoked = set(topology.REVOCATIONS)
    assert received("metering.asyncapi.json") == {"usage.recorded.*"} | followed | erasures | revoked | questions


def test_the_worker_takes_from_every_lane():
    broker = NatsBroker(apply_types=False)
    subscribe(broker, None)  # type: ignore[arg-type]  # nothing is received here
    assert len(broker.subscribers) == len(topology.METERING_WORKERS)
    for subscriber in broker.subscribers:
        assert isinstance(subscriber, LogicSubscriber)
        assert subscriber.subject.broker_address == "usage.recorded.*"
    filtered = [subject for lane in topology.METERING_WORKERS for subject in lane.filter_subjects]
    assert sorted(filtered) == sorted(topology.usage_subject(n) for n in range(topology.PARTITIONS))


@pytest.mark.parametrize("path", OPENAPI, ids=lambda path: path.name)
def test_every_route_says_what_it_is(path: Path):
    document = json.loads(path.read_text())
    for route, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, route)
            assert operation.get("description"), (method, route)


@pytest.mark.parametrize("path", OPENAPI, ids=lambda path: path.name)
def test_every_route_asks_who_is_calling(path: Path):
    paths = json.loads(path.read_text())["paths"]
    operations = [(route, method) for route in paths for method in paths[route] if route.startswith("/api/")]
    assert operations
    open_to_all = {route for route, method in operations if not paths[route][method].get("security")}
    assert open_to_all == (FOR_WHOEVER_HAS_NO_CREDENTIAL_YET & paths.keys())


def test_billings_bus_document_tells_what_its_worker_follows():
    followed = {*topology.BILLING_ORGANIZATIONS.filter_subjects, *topology.BILLING_USAGE_PERIODS.filter_subjects}
    assert received("billing.asyncapi.json") == {*followed, *topology.REVOCATIONS}


def test_auths_bus_document_tells_what_it_answers_and_follows():
    questions = {topology.VERIFY_KEY, READ_MESSAGE, READ_CONTACTS}
    followed = set(topology.AUTH_ENTITLEMENTS.filter_subjects)
    assert received("auth.asyncapi.json") == questions | followed | set(topology.REVOCATIONS)


def test_the_notifiers_bus_document_tells_what_it_answers_and_follows():
    followed = {*topology.NOTIFIER_EVENTS.filter_subjects, *topology.NOTIFIER_PEOPLE.filter_subjects}
    assert received("notifier.asyncapi.json") == {UNREAD_ALERTS} | followed | set(topology.REVOCATIONS)


def test_the_partitions_in_the_guide_for_publishers_are_right():
    guide = (ROOT / "docs/publishing-on-the-bus.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) \|$", guide, re.MULTILINE)
    assert len(rows) == 3
    assert [(org_id, topology.usage_partition(org_id)) for org_id, _ in rows] == [(org, int(n)) for org, n in rows]
    assert f"modulo {topology.PARTITIONS}" in guide
