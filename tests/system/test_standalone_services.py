"""Two services in one `aragora up`, each on a database of its own, also on a data directory that had only one."""

import json
import re
import secrets
from pathlib import Path

import asyncpg
import httpx
from aragora_up import StartUp, output
from servers import eventually

from aragora.chassis.migrate import migrate
from standalone import credentials, machine
from standalone.credentials import Credentials
from standalone.platform import environment
from standalone.postgres import EmbeddedPostgres

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


def earlier_credentials(data_dir: Path) -> Credentials:
    """The credentials of an `aragora up` for which metering was all there was."""
    data_dir.mkdir()
    earlier = {
        "postgres_password": secrets.token_urlsafe(24),
        "databases": {"metering": secrets.token_urlsafe(24)},
        "bus": {name: secrets.token_urlsafe(24) for name in ("operator", "metering", "publisher")},
        "jwt_secret": secrets.token_urlsafe(48),
        "service_key": f"svc_{secrets.token_urlsafe(32)}",
    }
    credentials.path_of(data_dir).write_text(json.dumps(earlier))
    return credentials.read(data_dir)


async def earlier_database(data_dir: Path, known: Credentials) -> None:
    """Its database."""
    server = EmbeddedPostgres(data_dir, known.postgres_password)
    await server.start()
    try:
        database = known.database_of("metering")
        await server.create_databases([database])
        connection = await asyncpg.connect(server.url_of(database))
        await migrate(connection, "metering")
        await connection.close()
    finally:
        await server.stop()


async def _names_its_plan(client: httpx.AsyncClient, org_id: str) -> bool:
    answer = await client.get("/api/subscription/dashboard/amara", params={"org_id": org_id})
    return answer.is_success and answer.json()["data"]["limits"]["plan_name"] == "Free"


async def test_a_data_directory_of_a_version_without_billing_gets_it(up: StartUp, data_dir: Path):
    earlier = earlier_credentials(data_dir)
    await earlier_database(data_dir, earlier)
    platform = await up()
    known = credentials.read(data_dir)
    assert known.databases["metering"] == earlier.databases["metering"]
    assert "aragora_billing" in platform.printed
    assert {"metering-worker-1", "billing-worker", "gateway"} <= set(platform.running.services)
    async with platform.client() as client:
        plan = await client.put("/api/subscription/organizations/acme/subscription", json={"plan": "free"})
        assert plan.is_success, plan.text
        await eventually(lambda: _names_its_plan(client, "acme"), 30)
    ready = json.loads((await output("status", "--json", at=data_dir))[1])
    assert ready["usage"]["billing_open_dead_letters"] == ready["usage"]["metering_open_dead_letters"] == 0


async def test_what_metering_has_lost_is_announced_again(up: StartUp, data_dir: Path):
    platform = await up()
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


async def test_a_bad_catalog_stops_the_start_and_names_line_and_key(data_dir: Path, tmp_path: Path):
    catalog = tmp_path / "mine.toml"
    catalog.write_text(BAD_CATALOG)
    code, printed = await output("up", "--port", str(machine.free_port()), at=data_dir, ARAGORA_CATALOG=str(catalog))
    assert code == 1
    line = BAD_CATALOG.splitlines().index("debates = -1") + 1
    assert re.search(rf"mine\.toml\D+{line}\b.*debates", printed), printed


async def test_a_catalog_of_ones_own_choice_reaches_billing(up: StartUp):
    platform = await up(ARAGORA_CATALOG="alwrity")
    async with platform.client() as client:
        plans = (await client.get("/api/subscription/plans")).json()["data"]
    assert [plan["name"] for plan in plans] == ["Free", "Basic", "Pro", "Enterprise"]
