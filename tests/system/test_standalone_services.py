"""All services in one `aragora up`, each on a database of its own, also on a data directory that had only some."""

import json
import re
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aragora_up import END_OF_PANEL, StartUp, Up, aragora, output, starter
from servers import eventually, scratch_dir, starting_alone

from aragora.chassis.migrate import migrate
from standalone import credentials, machine
from standalone.credentials import Credentials
from standalone.postgres import EmbeddedPostgres
from standalone.service_settings import OPERATOR_EMAIL, environment, mailbox_url

EVENT = {
    "user_id": "amara", "event_type": "debate", "provider": "anthropic", "model": "claude-sonnet-4", "tokens_in": 2000,
    "tokens_out": 700,
}  # fmt: skip
BAD_CATALOG = """\
[catalog]
name = "mine"
default_plan = "free"
tiers = ["free"]

[plans.free]
name = "Free"
price_usd_per_month = "0"
seats = 1

[plans.free.limits]
debates = -1
"""


def earlier_credentials(data_dir: Path, services: Sequence[str]) -> Credentials:
    """The credentials of an `aragora up` for which these services were all there was."""
    data_dir.mkdir()
    earlier = {
        "postgres_password": secrets.token_urlsafe(24),
        "databases": {name: secrets.token_urlsafe(24) for name in services},
        "bus": {name: secrets.token_urlsafe(24) for name in ("operator", *services, "publisher")},
        "jwt_secret": secrets.token_urlsafe(48),
        "service_key": f"svc_{secrets.token_urlsafe(32)}",
    }
    credentials.path_of(data_dir).write_text(json.dumps(earlier))
    return credentials.read(data_dir)


async def earlier_databases(data_dir: Path, known: Credentials) -> None:
    """Its databases."""
    server = EmbeddedPostgres(data_dir, known.postgres_password)
    await server.start()
    try:
        for service in known.databases:
            database = known.database_of(service)
            await server.create_databases([database])
            connection = await asyncpg.connect(server.url_of(database))
            await migrate(connection, service)
            await connection.close()
    finally:
        await server.stop()


async def _names_its_plan(client: httpx.AsyncClient, org_id: str) -> bool:
    answer = await client.get("/api/subscription/dashboard/amara", params={"org_id": org_id})
    return answer.is_success and answer.json()["data"]["limits"]["plan_name"] == "Free"


@pytest.mark.parametrize("services", [("metering",), ("metering", "billing")], ids=["metering", "billing"])
async def test_a_data_directory_of_an_earlier_version_gets_what_it_lacks(
    up: StartUp, data_dir: Path, services: Sequence[str]
):
    earlier = earlier_credentials(data_dir, services)
    await earlier_databases(data_dir, earlier)
    platform = await up()
    known = credentials.read(data_dir)
    assert {service: known.databases[service] for service in services} == earlier.databases
    assert (known.jwt_secret, known.service_key) == (earlier.jwt_secret, earlier.service_key)
    for shown in (
        "aragora_auth",
        "aragora_billing",
        "aragora_notifier",
        OPERATOR_EMAIL,
        known.operator_password,
    ):
        assert shown in platform.printed
    workers = {"metering-worker-1", "billing-worker", "auth-worker", "notifier-worker"}
    assert workers | {"gateway", "mailbox"} <= set(platform.running.services)
    async with platform.client() as client:
        plan = await client.put("/api/subscription/organizations/acme/subscription", json={"plan": "free"})
        assert plan.is_success, plan.text
        await eventually(lambda: _names_its_plan(client, "acme"), 30)

    async def nothing_waits() -> bool:
        usage = json.loads((await output("status", "--json", at=data_dir))[1])["usage"]
        assert {usage[f"{service}_open_dead_letters"] for service in credentials.SERVICES} == {0}
        consumers = ("auth-entitlements", "notifier-events", "notifier-people")
        return all(usage[f"{consumer}_waiting"].startswith("0 messages") for consumer in consumers)

    await eventually(nothing_waits, 30)


async def test_the_operator_may_choose_address_password_and_catalog(up: StartUp, data_dir: Path):
    chosen = {"email": "ada@example.com", "password": "tangerine-lamp-orbit-42"}
    variables = {"ARAGORA_OPERATOR_EMAIL": chosen["email"], "ARAGORA_OPERATOR_PASSWORD": chosen["password"]}
    first = await up(**variables, ARAGORA_CATALOG="alwrity")
    async with first.client() as client:
        plans = (await client.get("/api/subscription/plans")).json()["data"]
    assert [plan["name"] for plan in plans] == ["Free", "Basic", "Pro", "Enterprise"]
    account = await signed_in(first, chosen)
    assert account["user"]["is_operator"] is True
    assert await first.end(signal.SIGINT) == 0
    # What one changed is not changed back by the next start.
    other = variables | {"ARAGORA_OPERATOR_PASSWORD": "postcard-violin-quarry-7"}
    second = await up(**other, ARAGORA_CATALOG="alwrity")
    assert (await signed_in(second, chosen))["user"]["user_id"] == account["user"]["user_id"]
    # A signing secret that was kept keeps people signed in.
    async with httpx.AsyncClient(base_url=second.running.url) as client:
        bearer = {"Authorization": f"Bearer {account['access_token']}"}
        assert (await client.get("/api/auth/me", headers=bearer)).status_code == 200
    assert credentials.read(data_dir).operator_password not in second.printed


async def signed_in(platform: Up, who: dict[str, str]) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=platform.running.url) as client:
        answer = await client.post("/api/auth/login", json=who)
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()["data"]
    return begun


@pytest.mark.long
async def test_two_that_start_at_once_find_ports_of_their_own(tmp_path: Path):
    async with starting_alone():
        both = [
            await aragora("up", "--workers", "1", "--port", str(machine.free_port()), at=tmp_path / name)
            for name in "ab"
        ]
        started = [Up(process, tmp_path / name, "") for process, name in zip(both, "ab", strict=True)]
        try:
            for one in started:
                await one.read_until(END_OF_PANEL)
            first, second = (one.running for one in started)
            assert {first.postgres_port, first.nats_port}.isdisjoint({second.postgres_port, second.nats_port})
        finally:
            for one in started:
                if one.process.returncode is None:
                    await one.end(signal.SIGTERM)


@pytest.fixture(scope="module")
async def platform() -> AsyncIterator[Up]:
    """One that runs while several tests look at it, each at an organization of its own."""
    async with scratch_dir() as folder, starter(folder / "data") as start:
        yield await start()


async def test_what_metering_has_lost_is_announced_again(platform: Up):
    data_dir = platform.data_dir
    async with platform.client() as client:
        path = "/api/subscription/organizations/acme/subscription"
        assert (await client.put(path, json={"plan": "free"})).is_success
        await eventually(lambda: _names_its_plan(client, "acme"), 30)
        settings = environment(credentials.read(data_dir), platform.running, "metering")
        metering = await asyncpg.connect(settings["DATABASE_URL"])
        await metering.execute("TRUNCATE entitlements, entitlement_limits, plans")
        await metering.close()
        question = {"org_id": "acme", "operations": [{"event_type": "debate"}]}
        assert (await client.post("/api/usage/limits/check", json=question)).status_code == 404
        assert (await output("announce", at=data_dir))[0] == 0
        await eventually(lambda: _names_its_plan(client, "acme"), 30)
        checked = await client.post("/api/usage/limits/check", json=question)
        assert checked.json()["limits"][0]["limit"] == 10, checked.text


async def test_people_are_told_by_letter_and_in_the_product(platform: Up):
    mailbox = mailbox_url(credentials.read(platform.data_dir), platform.running)
    account = {"email": "maya@example.com", "password": "tangerine-lamp-orbit-42", "organization": "Maya's Bakery"}
    async with platform.client() as operator, httpx.AsyncClient(base_url=platform.running.url) as maya:

        async def letter(words: str) -> str:
            found = await maya.get(f"{mailbox}letters.json", params={"to": account["email"]})
            return next((one["text"] for one in found.json() if words in one["subject"]), "")

        registered = (await maya.post("/api/auth/register", json=account)).json()["data"]
        maya.headers["Authorization"] = f"Bearer {registered['access_token']}"
        user_id, org_id = registered["user"]["user_id"], registered["organization"]["org_id"]
        link = re.search(r"#token=(\S+)", await eventually(lambda: letter("Verify your e-mail address"), 20))
        assert link is not None
        verified = await maya.post("/api/auth/verify-email", json={"token": link[1]})
        assert verified.is_success, verified.text

        async def unread() -> int:
            dashboard = await maya.get(f"/api/subscription/dashboard/{user_id}")
            return dashboard.json()["data"]["summary"]["unread_alerts"] if dashboard.is_success else -1

        await eventually(lambda: _is_told(unread, 0), 20)
        for count, percent, told in ((8, 80, 1), (1, 90, 2), (1, 100, 3)):
            given = {"org_id": org_id, "occurred_at": datetime.now(UTC).isoformat()}
            usage = [EVENT | given | {"id": secrets.token_hex(8)} for _ in range(count)]
            assert (await operator.post("/api/usage/events", json=usage)).status_code == 202
            await eventually(lambda told=told: _is_told(unread, told), 20, what=f"{told} unread")  # type: ignore[misc]
            words = "is reached" if percent == 100 else f"{percent} % of"
            await eventually(lambda words=words: letter(words), 20, what=words)  # type: ignore[misc]
        alerts = (await maya.get(f"/api/subscription/alerts/{user_id}")).json()["data"]
        assert [one["threshold_percentage"] for one in alerts["alerts"]] == [100, 90, 80]
        assert (await maya.post(f"/api/subscription/alerts/{user_id}/mark-all-read")).is_success
        assert await unread() == 0


async def _is_told(unread: Callable[[], Awaitable[int]], count: int) -> bool:
    return await unread() == count


async def test_a_bad_catalog_stops_the_start_and_names_line_and_key(data_dir: Path, tmp_path: Path):
    catalog = tmp_path / "mine.toml"
    catalog.write_text(BAD_CATALOG)
    code, printed = await output("up", "--port", str(machine.free_port()), at=data_dir, ARAGORA_CATALOG=str(catalog))
    assert code == 1
    line = BAD_CATALOG.splitlines().index("debates = -1") + 1
    assert re.search(rf"mine\.toml\D+{line}\b.*debates", printed), printed
