"""A platform is used for a day, well and badly, with traces; then nothing secret or personal is in any span."""

import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aragora_up import StartUp
from auth_platform import PASSWORD
from everyday_life import NAME, live
from people import Site, surroundings
from secrets_used import SecretsUsed, texts_of
from servers import eventually
from span_collector import collector

from standalone import credentials
from standalone.nats import EmbeddedNats
from standalone.service_settings import environment

pytestmark = pytest.mark.long

TOLD = {
    "http.request.method", "http.route", "http.response.status_code", "error.type", "db.system.name", "db.query.text",
    "messaging.system", "messaging.batch.message_count", "server.address",
}  # fmt: skip
"""Every attribute that a span may have."""
PEOPLE = "SELECT email FROM users WHERE email IS NOT NULL"


@pytest.fixture(autouse=True)
def environs() -> Iterator[None]:
    with surroundings():
        yield


async def test_nothing_secret_or_personal_is_in_a_span(up: StartUp, data_dir: Path):
    async with collector() as traces:
        running = await up(ARAGORA_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8", **traces.settings)
        known, place = credentials.read(data_dir), running.running
        used = SecretsUsed()
        used.add("a password of the platform", known.postgres_password, *known.databases.values(), *known.bus.values())
        used.add("what the platform signs with", known.jwt_secret, known.sealing_key, known.operator_password, PASSWORD)
        used.add("the operator's key", known.service_key)
        used.add("a person's name", NAME)
        bus = await EmbeddedNats(data_dir, known.bus, place.nats_port).connect()
        async with httpx.AsyncClient(timeout=30) as client:
            used.watch(client)
            site = Site(dict.fromkeys(credentials.SERVICES, place.url), bus, client)
            await live(site)
            # Where it must not be told either: in a path, and in a query string.
            hidden = secrets.token_hex(16)
            used.add("a path or a query string", hidden)
            await client.get(f"{place.url}/api/usage/{hidden}", params={"token": hidden})
        await bus.close()
        used.add("an address", *await texts_of(environment(known, place, "auth")["DATABASE_URL"], [PEOPLE]))
        told_by = {"gateway", "metering-worker", "auth-worker", "billing-worker", "notifier-worker"}
        await eventually(lambda: {span.service for span in traces.spans()} >= told_by, 30)
        assert await running.end(signal.SIGTERM) == 0

        spans = traces.spans()
        print(f"{len(used.found)} secrets, {len(spans)} spans")
        assert min(len(used.found), len(spans)) > 50
        assert {name for span in spans for name in span.attributes} <= TOLD
        assert used.leaks_in("a span", traces.text) == []
