"""A platform is used for a day, well and badly; then nothing secret or personal is in its logs, events or audit log."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aragora_up import StartUp
from auth_platform import PASSWORD
from everyday_life import NAME, live
from people import Site, surroundings
from secrets_used import SecretsUsed, logs_of, texts_of

from standalone import credentials
from standalone.nats import EmbeddedNats
from standalone.platform import environment

EVENTS_KEPT = "SELECT row_to_json(e)::text FROM events AS e"
AUDIT_KEPT = "SELECT concat_ws(' ', action, actor, user_id, org_id, detail) FROM security_events"
HASHES = (
    "SELECT password_hash FROM users WHERE password_hash IS NOT NULL",
    "SELECT encode(totp_secret, 'hex') FROM users WHERE totp_secret IS NOT NULL",
    "SELECT encode(digest, 'hex') FROM api_keys",
    "SELECT encode(digest, 'hex') FROM recovery_codes",
)


@pytest.fixture(autouse=True)
def environs() -> Iterator[None]:
    with surroundings():
        yield


@pytest.mark.parametrize("level", ["DEBUG", pytest.param("INFO", marks=pytest.mark.long)])
async def test_nothing_secret_or_personal_is_told(up: StartUp, data_dir: Path, level: str):
    running = await up(ARAGORA_LOG_LEVEL=level)
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
        said = [json.dumps(event) for event in await site.said()]
    await bus.close()
    urls = {service: environment(known, place, service)["DATABASE_URL"] for service in credentials.SERVICES}
    kept = {f"events of {service}": await texts_of(url, [EVENTS_KEPT]) for service, url in urls.items()}
    audited = await texts_of(urls["auth"], [AUDIT_KEPT])
    used.add("a hash", *await texts_of(urls["auth"], HASHES))
    assert await running.end(signal.SIGTERM) == 0

    logs = logs_of(data_dir)
    assert {"gateway.log", "postgres.log", "nats.log", "auth-worker.log"} <= logs.keys()
    assert '"level": "debug"' in logs["gateway.log"] or level != "DEBUG"
    places = [*logs.items(), *((place, text) for place, texts in kept.items() for text in texts)]
    places += [*(("the bus", text) for text in said), *(("the audit log", text) for text in audited)]
    print(f"{len(used.found)} secrets, {len(logs)} logs, {len(said)} messages, {len(audited)} entries for auditors")
    assert min(len(used.found), len(said), len(audited)) > 50
    leaks = {leak for place, text in places for leak in used.leaks_in(place, text)}
    assert sorted(leaks) == []
