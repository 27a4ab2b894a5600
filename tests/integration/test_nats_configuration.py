"""The committed files of deploy/nats are what a server takes, and say the same as `aragora_nats.configuration`."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import NATS_PASSWORDS, eventually, scratch_dir
from typer.testing import CliRunner

from aragora.contracts.topology import ACCOUNTS
from aragora_nats.cli import app
from aragora_nats.configuration import configuration, password_variable
from aragora_nats.connecting import connect_once
from standalone import machine
from standalone.child import Child, Program, log_for
from standalone.nats import server_binary

CONFIGURATION = Path(__file__).parents[2] / "deploy/nats"
ENVIRONMENT = {
    **{password_variable(account.name): NATS_PASSWORDS[account.name] for account in ACCOUNTS},
    "NATS_SERVER_NAME": "nats-0",
    "NATS_PASSWORD_CLUSTER": "cluster-password",
    **{f"NATS_ROUTE_{number}": f"nats://cluster:cluster-password@127.0.0.1:{6222 + number}" for number in range(3)},
    "NATS_JETSTREAM_KEY": secrets.token_hex(32),
}


@pytest.mark.parametrize("name", ["single.conf", "cluster.conf"])
def test_a_server_takes_the_committed_files(name: str):
    checked = subprocess.run(
        [server_binary(), "-t", "-c", CONFIGURATION / name],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_a_missing_password_stops_the_server():
    missing = {name: value for name, value in ENVIRONMENT.items() if name != "NATS_PASSWORD_BILLING"}
    checked = subprocess.run(
        [server_binary(), "-t", "-c", CONFIGURATION / "single.conf"],
        env=missing, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode != 0
    assert "NATS_PASSWORD_BILLING" in checked.stderr


@pytest.fixture
async def started() -> AsyncIterator[Callable[[Path], Any]]:
    """Starts a server on a configuration; returns its port, and what it says of itself."""
    async with AsyncExitStack() as stack:

        async def start(config: Path) -> tuple[int, dict[str, Any]]:
            folder = await stack.enter_async_context(scratch_dir())
            for file in config.parent.glob("*.conf"):
                text = file.read_text().replace("/data/jetstream", str(folder / "store"))
                (folder / file.name).write_text(text)
            config = folder / config.name
            port, monitoring_port = machine.free_port(), machine.free_port()
            argv = [str(server_binary()), "-c", str(config), "-p", str(port), "-m", str(monitoring_port)]
            argv += ["-a", "127.0.0.1"]
            child = Child(Program("nats", argv, ENVIRONMENT, stop_signal=signal.SIGTERM), log_for(folder, "nats"))
            stack.push_async_callback(child.stop, 10)
            await child.start()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{monitoring_port}") as client:

                async def page(path: str) -> Any:
                    try:
                        answer = await client.get(path)
                    except httpx.HTTPError:
                        return None
                    return answer.json() if answer.is_success else None

                await eventually(lambda: page("/healthz"))
                return port, {"varz": await page("/varz"), "jsz": await page("/jsz?config=1")}

        yield start


async def test_a_deployment_and_the_standalone_are_told_the_same(started: Callable[[Path], Any]):
    async with scratch_dir() as folder:
        ours = folder / "ours.conf"
        ours.write_text(configuration("/data/jetstream", 4222, NATS_PASSWORDS))
        _, standalone = await started(ours)
    port, deployed = await started(CONFIGURATION / "single.conf")
    for name in ("max_payload", "max_pending", "server_name"):
        assert deployed["varz"][name] == standalone["varz"][name], name
    for name in ("max_memory", "max_storage", "sync_interval", "sync_always"):
        assert deployed["jsz"]["config"][name] == standalone["jsz"]["config"][name], name
    assert deployed["jsz"]["config"]["sync_always"] is True
    for account in ACCOUNTS:
        password = NATS_PASSWORDS[account.name]
        client = await connect_once(f"nats://127.0.0.1:{port}", user=account.name, password=password)
        await client.close()


async def test_the_topology_is_applied_from_the_command_line(nats_server: str):
    assert (await command("topology", "apply", NATS_URL=nats_server))[0] == 0
    client = await connect_once(nats_server)
    assert {"USAGE", "EVENTS"} <= {info.config.name for info in await client.jetstream().streams_info()}
    await client.close()
    code, said = await command("topology", "apply", NATS_URL="nats://127.0.0.1:1")
    assert code == 1
    assert "check NATS_URL" in said


async def command(*arguments: str, **variables: str) -> tuple[int | None, str]:
    """Runs `aragora-nats`. Returns its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "aragora_nats.cli", *arguments,
        env=os.environ | variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, said.decode()


def test_the_users_are_printed():
    printed = CliRunner().invoke(app, ["config"]).output
    assert printed == (CONFIGURATION / "accounts.conf").read_text()
    assert json.dumps("events.auth.*.*") in printed
