"""A platform is used for a day, well and badly; then nothing secret or personal is in its logs, events or audit log."""

import json
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
from secrets_used import SecretsUsed, logs_of, texts_of
from servers import eventually

from standalone import credentials
from standalone.nats import EmbeddedNats
from standalone.service_settings import environment

EVENTS_KEPT = "SELECT row_to_json(e)::text FROM events AS e"
AUDIT_KEPT = "SELECT concat_ws(' ', action, actor, user_id, org_id, detail) FROM security_events"
NOTIFIER_KEPT = (
    "SELECT row_to_json(a)::text FROM usage_alerts AS a",
    "SELECT row_to_json(m)::text FROM email_deliveries AS m",
    "SELECT row_to_json(w)::text FROM webhook_deliveries AS w",
    "SELECT row_to_json(t)::text FROM webhook_attempts AS t",
    "SELECT concat_ws(' ', description, encode(url, 'escape'), encode(secret, 'escape')) FROM webhook_endpoints",
    "SELECT concat_ws(' ', user_id, encode(email, 'escape'), encode(name, 'escape')) FROM contacts",
    "SELECT concat_ws(' ', org_id, encode(name, 'escape')) FROM directories",
)
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
    running = await up(ARAGORA_LOG_LEVEL=level, ARAGORA_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    known, place = credentials.read(data_dir), running.running
    used = SecretsUsed()
    used.add("a password of the platform", known.postgres_password, *known.databases.values(), *known.bus.values())
    used.add("what the platform signs with", known.jwt_secret, known.sealing_key, known.operator_password, PASSWORD)
    used.add("the operator's key", known.service_key)
    used.add("what the notifier has alone", known.notifier_sealing_key, known.mailbox_key)
    used.add("a person's name", NAME)
    bus = await EmbeddedNats(data_dir, known.bus, place.nats_port).connect()
    async with httpx.AsyncClient(timeout=30) as client:
        used.watch(client)
        site = Site(dict.fromkeys(credentials.SERVICES, place.url), bus, client)
        await live(site)
        used.add("where a webhook goes", *await be_told(site))
        said = [json.dumps(event) for event in await site.said()]
    await bus.close()
    urls = {service: environment(known, place, service)["DATABASE_URL"] for service in credentials.SERVICES}
    kept = {f"events of {service}": await texts_of(url, [EVENTS_KEPT]) for service, url in urls.items()}
    kept["what the notifier keeps"] = await texts_of(urls["notifier"], NOTIFIER_KEPT)
    audited = await texts_of(urls["auth"], [AUDIT_KEPT])
    used.add("a hash", *await texts_of(urls["auth"], HASHES))
    assert await running.end(signal.SIGTERM) == 0

    logs = logs_of(data_dir)
    assert {
        "gateway.log",
        "postgres.log",
        "nats.log",
        "auth-worker.log",
        "notifier-worker.log",
        "mailbox.log",
    } <= logs.keys()
    assert '"level": "debug"' in logs["gateway.log"] or level != "DEBUG"
    places = [*logs.items(), *((place, text) for place, texts in kept.items() for text in texts)]
    places += [*(("the bus", text) for text in said), *(("the audit log", text) for text in audited)]
    print(f"{len(used.found)} secrets, {len(logs)} logs, {len(said)} messages, {len(audited)} entries for auditors")
    assert min(len(used.found), len(said), len(audited)) > 50
    leaks = {leak for place, text in places for leak in used.leaks_in(place, text)}
    assert sorted(leaks) == []


async def be_told(site: Site) -> list[str]:
    """A webhook endpoint where nobody listens, of somebody whose address is verified. What its URL must be kept for."""
    owner, place = await site.register(name=NAME), secrets.token_hex(16)
    letter = await site.letter("EmailVerificationRequested", owner.user_id)
    await site.read("POST", "/api/auth/verify-email", None, {"token": letter})
    path, wanted = "/api/notifications/endpoints", {"url": f"http://127.0.0.1:9/{place}", "description": "nobody"}
    made = await site.read("POST", path, owner.access_token, wanted)
    tested = await site.ask("notifier", "POST", f"{path}/{made['endpoint_id']}/test", owner.access_token)
    assert tested.is_success, tested.text

    async def was_tried() -> bool:
        found = await site.read("GET", f"{path}/{made['endpoint_id']}", owner.access_token)
        return bool(found["failing_since"])

    await eventually(was_tried, 20)
    return [place]
