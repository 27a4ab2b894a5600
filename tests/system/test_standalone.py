"""`aragora up` as a person starts it: a real process, real ports, real signals."""

import asyncio
import json
import re
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from aragora_up import END_OF_PANEL, StartUp, output
from servers import eventually, starting_alone

from standalone import credentials, machine
from standalone.service_settings import mailbox_url

EVENT = {
    "id": "first",
    "org_id": "acme",
    "user_id": "amara",
    "event_type": "debate",
    "provider": "anthropic",
    "model": "claude-sonnet-4",
    "tokens_in": 2000,
    "tokens_out": 700,
    "occurred_at": "2026-01-15T12:00:00Z",
}


def _descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    alive = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.NoSuchProcess:
            continue
    return alive


async def _total_cost(client: httpx.AsyncClient) -> str | None:
    answer = await client.get("/api/usage/organizations/acme/summary")
    summary = answer.json()["data"]
    return summary["total_cost"] if summary["total_events"] else None


async def _has_used_up(client: httpx.AsyncClient, org_id: str) -> bool:
    """Whether metering knows the organization's plan, and refuses one debate more."""
    question = {"org_id": org_id, "operations": [{"event_type": "debate"}]}
    answer = await client.post("/api/usage/limits/check", json=question)
    return answer.is_success and answer.json()["allowed"] is False


@pytest.mark.alone
async def test_it_shows_where_everything_is_stops_cleanly_and_keeps_the_data(up: StartUp, data_dir: Path) -> None:
    first = await up()
    secrets = credentials.read(data_dir)
    operator = ("operator@aragora.local", secrets.operator_password)
    mailbox = mailbox_url(secrets, first.running)
    for shown in (
        f"{first.running.url}/docs",
        secrets.service_key,
        mailbox,
        str(credentials.path_of(data_dir)),
        *operator,
    ):
        assert shown in first.printed
    sealing = (secrets.sealing_key, secrets.notifier_sealing_key)
    for kept_to_itself in (secrets.postgres_password, secrets.jwt_secret, *sealing, *secrets.bus.values()):
        assert kept_to_itself not in first.printed
    async with first.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert (await client.get("/docs")).status_code == 200
        assert (await client.post("/api/usage/events", json=EVENT)).status_code == 202
        assert await eventually(lambda: _total_cost(client)) == "0.0165"
        pages = dict.fromkeys(("success_url", "cancel_url"), "https://example.com")
        refused = await client.post("/api/billing/checkout?org_id=acme", json={"plan": "starter", **pages})
        assert (refused.status_code, "STRIPE_SECRET_KEY is not set" in refused.text) == (503, True), refused.text
    assert "stripe-simulator" not in first.running.services
    family = _descendants(first.process.pid)
    assert await first.end(signal.SIGINT) == 0
    assert "Stopped." in first.printed
    assert _alive(family) == []

    started_at = time.monotonic()
    second = await up()
    assert time.monotonic() - started_at < 10
    assert second.running.postgres_port == json.loads((data_dir / "running.json").read_text())["postgres_port"]
    async with second.client() as client:
        assert (await client.post("/api/usage/events", json=EVENT)).status_code == 202
        assert await _total_cost(client) == "0.0165"
    assert await second.end(signal.SIGTERM) == 0


async def test_a_killed_one_leaves_no_child_and_the_next_start_is_sound(up: StartUp) -> None:
    first = await up()
    async with first.client() as client:
        await client.post("/api/usage/events", json=EVENT)
        await eventually(lambda: _total_cost(client))
    family = _descendants(first.process.pid)
    assert len(family) > 4
    await first.end(signal.SIGKILL)
    await eventually(lambda: _alive(family) == [], 30)
    second = await up()
    async with second.client() as client:
        assert await _total_cost(client) == "0.0165"


async def test_a_killed_child_starts_again_and_usage_flows(up: StartUp) -> None:
    platform = await up()
    for name in (
        "metering-worker-1",
        "auth-worker",
        "billing-worker",
        "notifier-worker",
        "nats",
        "postgres",
        "gateway",
    ):
        before = platform.running.services[name]
        async with starting_alone():  # until it runs again, its port is free
            psutil.Process(before).kill()
            await platform.read_until(f"{name} runs again.")
        assert platform.running.services[name] != before
    async with platform.client() as client:

        async def accepted() -> bool:
            return (await client.post("/api/usage/events", json=EVENT)).status_code == 202

        await eventually(accepted, 30)
        await eventually(lambda: _total_cost(client), 60)


async def test_ctrl_c_while_it_starts_stops_what_did_start(up: StartUp) -> None:
    platform = await up(until="postgres is ready")
    family = _descendants(platform.process.pid)
    assert await platform.end(signal.SIGINT) == 0
    assert _alive(family) == []
    assert END_OF_PANEL not in platform.printed


async def test_a_busy_port_is_said_in_a_sentence(data_dir: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        code, printed = await output("up", "--port", str(port), at=data_dir)
        assert code == 1
        assert re.fullmatch(
            rf"aragora: Port {port} is taken by .*\. Stop that, or choose another .* --port\.\n", printed
        )
        code, printed = await output(
            "up", "--postgres-port", str(port), "--port", str(machine.free_port()), at=data_dir
        )
        assert code == 1
        assert "another port with --postgres-port." in printed


async def test_stripe_is_not_simulated_where_it_is_set_up(data_dir: Path) -> None:
    code, printed = await output("up", "--simulate-stripe", at=data_dir, STRIPE_PRICE_STARTER="price_of_stripes")
    assert code == 1
    assert re.fullmatch(r"aragora: .*STRIPE_PRICE_STARTER.* or start without --simulate-stripe\.\n", printed), printed


async def test_commands_beside_a_running_platform(up: StartUp, data_dir: Path) -> None:
    # The demo's endpoint is on this machine.
    platform = await up("--simulate-stripe", ARAGORA_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    assert f"{platform.running.stripe_url} is a stand-in for Stripe; nothing is charged" in platform.printed
    code, printed = await output("up", at=data_dir)
    assert code == 1
    assert f"Another `aragora up` runs on {data_dir} (pid {platform.process.pid}, {platform.running.url})" in printed

    async with platform.client() as client:
        # A plan that the demo finds is left alone. This one is used up: every debate more is refused.
        plan = {"plan": "free"}
        assert (await client.put("/api/subscription/organizations/cinder-games/subscription", json=plan)).is_success
        used = {"org_id": "cinder-games", "occurred_at": datetime.now(UTC).isoformat()}
        debates = [EVENT | used | {"id": f"debate-{number}"} for number in range(10)]
        assert (await client.post("/api/usage/events", json=debates)).status_code == 202
        await eventually(lambda: _has_used_up(client, "cinder-games"), 30)
    demo, status, for_people, key, password, *rest = await asyncio.gather(
        *(
            output(*command, at=data_dir)
            for command in (
                ("demo", "--rate", "300", "--seconds", "5"),
                ("status", "--json"),
                ("status",),
                ("key",),
                ("password",),
                ("migrate",),
                ("migrate", "billing"),
                ("notifier", "preview", "--out", str(data_dir / "preview")),
                ("announce",),
                ("announce", "auth"),
                ("messages",),
                ("dead-letters", "--service", "billing", "list"),
                ("topology", "apply"),
            )
        )
    )
    assert demo[0] == for_people[0] == 0
    assert re.search(r"[1-9]\d* events sent and counted in this run\.", demo[1])
    assert re.search(r"acme-robotics +Enterprise .* none +0", demo[1])
    assert re.search(r"cinder-games +Free +10 .* debates 100 % +[1-9]\d*", demo[1]), demo[1]
    assert re.search(r"[1-9]\d* debates were refused", demo[1])
    told = r"Fern had a letter after \d+\.\d s, the bakery's own program after \d+\.\d s, signed"
    assert len(re.findall(told, " ".join(demo[1].split()))) == 3, demo[1]
    for chapter in (
        "Fern's Bakery has signed up. Its plan is Free. A letter came after",
        "It holds 8 of its 10 debates.",
        "It wants Professional: $299.00 a month",
        "It has paid, and Professional was its plan",
        "payment failed. $450.00 are open, and Professional goes on until",
        "recovered",
    ):
        assert chapter in demo[1], demo[1]
    report = json.loads(status[1])
    assert report["ports"]["stripe_simulator"] == platform.running.stripe_port
    assert report["ports"]["mailbox"] == platform.running.mailbox_port
    assert report["ready"]
    assert report["versions"]["postgres"].startswith("18.")
    assert {child["name"]: child["state"] for child in report["processes"]} == dict.fromkeys(
        (
            "postgres",
            "nats",
            "mailbox",
            "stripe-simulator",
            "gateway",
            "metering-worker-1",
            "auth-worker",
            "billing-worker",
            "notifier-worker",
        ),
        "running",
    )
    assert key == (0, credentials.read(data_dir).service_key + "\n")
    assert password == (0, credentials.read(data_dir).operator_password + "\n")
    assert {code for code, _ in rest} == {0}, rest
    assert "Verify" in (data_dir / "preview" / "index.html").read_text()
    assert (await output("verify", at=data_dir))[0] == 0
    # Whatever becomes of the stand-in, it knows the bakery as billing does.
    async with starting_alone():
        psutil.Process(platform.running.services["stripe-simulator"]).kill()
        await platform.read_until("stripe-simulator runs again.")
    code, printed = await output("reconcile", at=data_dir)
    assert (code, "1 live subscriptions at Stripe; 0 organizations repaired." in printed) == (0, True), printed


async def test_commands_without_a_platform_say_how_to_start_one(data_dir: Path) -> None:
    for command in (
        ["status"],
        ["key"],
        ["password"],
        ["verify"],
        ["messages"],
        ["announce"],
        ["topology", "apply"],
        ["notifier", "reseal"],
    ):
        code, printed = await output(*command, at=data_dir)
        assert (code, "aragora up" in printed) == (1, True), printed
        assert "Traceback" not in printed
