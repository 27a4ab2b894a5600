"""What runs on a data directory, and how it is."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
from nats.errors import Error as NatsError

from aragora.contracts.topology import CONSUMERS, STREAMS
from standalone import credentials, datadir, machine
from standalone.credentials import Credentials
from standalone.datadir import Running
from standalone.machine import MIB
from standalone.nats import EmbeddedNats
from standalone.service_settings import environment


async def report(data_dir: Path) -> dict[str, Any]:
    """Versions, ports, health, lag and processes. Raises `NotRunning`."""
    running = datadir.current_run(data_dir)
    secrets = credentials.read(data_dir)
    ready, not_ready = await _readiness(running)
    database, bus = await _database(running, secrets), await _bus(data_dir, running, secrets)
    return {
        "url": running.url,
        "ready": ready,
        "not_ready": not_ready,
        "data_dir": str(data_dir),
        "versions": {
            "aragora": version("aragora-standalone"),
            "postgres": database.pop("version"),
            "nats": bus.pop("version"),
        },
        "ports": {"http": running.port, "postgres": running.postgres_port, "nats": running.nats_port}
        | ({"stripe_simulator": running.stripe_port} if running.stripe else {})
        | ({"mailbox": running.mailbox_port} if running.mailbox_port else {}),
        "usage": {**database, **bus, "free_disk": f"{machine.free_disk_bytes(data_dir) // MIB:,} MiB"},
        "processes": [_process(name, pid) for name, pid in running.services.items()],
    }


async def _readiness(running: Running) -> tuple[bool, str]:
    async with httpx.AsyncClient(timeout=5) as client:
        try:
            answer = await client.get(f"{running.url}/readyz")
        except httpx.HTTPError as error:
            return False, f"does not answer ({type(error).__name__})"
    return answer.status_code == httpx.codes.OK, "" if answer.is_success else str(answer.json().get("detail"))


async def _database(running: Running, secrets: Credentials) -> dict[str, Any]:
    """The server's version; of each service, how large its database is and how many dead letters are open."""
    found: dict[str, Any] = {}
    for service in credentials.SERVICES:
        url = environment(secrets, running, service)["DATABASE_URL"]
        try:
            connection = await asyncpg.connect(url, timeout=5)
        except (asyncpg.PostgresError, OSError, TimeoutError) as error:
            return {"version": f"does not answer: {error}"}
        try:
            size = await connection.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
            letters = await connection.fetchval("SELECT count(*) FROM dead_letters WHERE status = 'open'")
            found["version"] = await connection.fetchval("SHOW server_version")
        finally:
            await connection.close()
        found |= {f"{service}_database": size, f"{service}_open_dead_letters": letters}
    return found


async def _bus(data_dir: Path, running: Running, secrets: Credentials) -> dict[str, Any]:
    server = EmbeddedNats(data_dir, secrets.bus, running.nats_port)
    try:
        client = await server.connect()
    except (NatsError, OSError, TimeoutError) as error:
        return {"version": f"does not answer: {error}"}
    try:
        bus = client.jetstream()
        lag = {}
        for consumer in CONSUMERS:
            info = await bus.consumer_info(consumer.stream, consumer.name)
            lag[f"{consumer.name}_waiting"] = f"{info.num_pending or 0} messages, {info.num_ack_pending or 0} in work"
        kept = {
            f"{stream.name}_kept": f"{(await bus.stream_info(stream.name)).state.messages} messages"
            for stream in STREAMS
        }
        return {"version": str(client.connected_server_version).strip("<>").rpartition(" v")[2], **lag, **kept}
    finally:
        await client.close()


def _process(name: str, pid: int) -> dict[str, Any]:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        memory = sum(_own_memory(member) for member in family)
        seconds = round(time.time() - process.create_time())
        state = "running" if process.status() != psutil.STATUS_ZOMBIE else "ended"
    except psutil.Error:
        return {"name": name, "pid": pid, "state": "restarted or ended", "memory_mib": 0, "seconds": 0}
    return {"name": name, "pid": pid, "state": state, "memory_mib": memory // MIB, "seconds": seconds}


def _own_memory(process: psutil.Process) -> int:
    """Resident memory without what it shares, such as Postgres's buffers, which would count once per connection."""
    memory = process.memory_info()
    resident: int = memory.rss - getattr(memory, "shared", 0)
    return resident
