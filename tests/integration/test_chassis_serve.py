"""A service as a process of its own: how it starts and how it ends."""

import asyncio
import json
import signal
import socket
import sys
from contextlib import asynccontextmanager

import httpx
import pytest
from servers import eventually

from standalone import machine

SERVICE = """
import asyncio, signal, sys
from contextlib import asynccontextmanager
import uvloop
from fastapi import APIRouter
from aragora.chassis import telemetry
from aragora.chassis.app import create_app, serve

routes = APIRouter()
entered, released = asyncio.Event(), asyncio.Event()

@routes.get("/slow")
async def slow() -> str:
    entered.set()
    await released.wait()
    return "finished"

@routes.get("/entered")
async def was_entered() -> bool:
    return entered.is_set()

@routes.get("/release")
async def release() -> None:
    released.set()

@asynccontextmanager
async def lifespan(app):
    if len(sys.argv) > 3:
        raise RuntimeError("no database")
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, released.set)
    print("begins", flush=True)
    yield
    print("ends", flush=True)

telemetry.configure("test")
app = create_app(title="Test", version="1", routers=[routes], lifespans=[lifespan])
uvloop.run(serve(app, "127.0.0.1", int(sys.argv[1]), drain_seconds=float(sys.argv[2])))
"""


@pytest.fixture
def port() -> int:
    return machine.free_port()


@asynccontextmanager
async def service(port: int, *arguments: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVICE,
        str(port),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def answers(http: httpx.AsyncClient, path: str) -> int | None:
    try:
        return (await http.get(path)).status_code
    except httpx.TransportError:
        return None


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_it_drains_says_so_finishes_what_it_began_and_ends_cleanly(port, stop):
    async with service(port, "30") as process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await eventually(lambda: answers(http, "/readyz"), 20)
        slow = asyncio.create_task(http.get("/slow"))

        async def is_entered() -> bool:
            return (await http.get("/entered")).json()

        await eventually(is_entered)
        process.send_signal(stop)

        async def is_draining() -> bool:
            return await answers(http, "/readyz") == 503

        await eventually(is_draining)
        assert await answers(http, "/healthz") == 200
        await http.get("/release")
        assert (await slow).json() == "finished"
        process.send_signal(stop)  # once more: no need to wait for the load balancer
        output, log = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
        assert output.split() in ([b"begins"], [b"begins", b"ends"])
        assert all(json.loads(line) for line in log.splitlines())


async def test_without_a_drain_time_requests_in_flight_still_finish_and_the_lifespan_ends(port):
    async with service(port, "0") as process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await eventually(lambda: answers(http, "/readyz"), 20)
        slow = asyncio.create_task(http.get("/slow"))

        async def is_entered() -> bool:
            return (await http.get("/entered")).json()

        async def is_closed() -> bool:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as another:
                return await answers(another, "/healthz") is None

        await eventually(is_entered)
        process.send_signal(signal.SIGTERM)
        await eventually(is_closed)
        assert not slow.done()
        process.send_signal(signal.SIGUSR1)  # no request reaches it any more, also not on a connection that was idle
        async with asyncio.timeout(20):
            assert (await slow).json() == "finished"
            output, _ = await process.communicate()
        assert process.returncode == 0
        assert output.split() == [b"begins", b"ends"]


async def test_a_port_that_is_taken_and_a_failing_start_are_exits_with_a_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with service(port, "0") as process:
            _, log = await asyncio.wait_for(process.communicate(), 20)
            assert process.returncode != 0
            assert b"address already in use" in log
    async with service(port, "0", "fail") as process:
        _, log = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode != 0
        assert b"no database" in log
