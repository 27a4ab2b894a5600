"""Server-Sent Events as a browser reads them, and the server that sends them, in this process."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from one_service import bearer
from servers import eventually

from aragora.chassis import app as chassis_app


@dataclass
class Events:
    """What has come on a stream so far, as (event, content), and the id of the last one that had one."""

    found: list[tuple[str, Any]] = field(default_factory=list)
    last_id: str | None = None
    heartbeats: int = 0
    is_over: bool = False

    def of(self, event: str) -> list[Any]:
        """The contents of one kind."""
        return [content for name, content in self.found if name == event]

    @property
    def ids(self) -> list[str]:
        """Of the alerts."""
        return [each["id"] for each in self.of("alert")]

    async def over(self) -> None:
        """Wait until the server has ended it."""
        await eventually(lambda: self.is_over, 10, what="the stream is over")

    async def read(self, answer: httpx.Response) -> None:
        """Take in everything until the end."""
        event, content = "", ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                content = value
            elif name == "id":
                self.last_id = value
            elif not name:
                self.heartbeats += line.startswith(":")
                if content:
                    self.found.append((event, json.loads(content)))
                event, content = "", ""
        self.is_over = True


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[tuple[httpx.AsyncClient, chassis_app._Server]]:
    """The application behind a real port, and what stops it as SIGTERM does."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=20)
    server = chassis_app._Server(config, app, drain_seconds=0)
    running = asyncio.create_task(server._serve())
    await eventually(lambda: server.started, what="the server has started")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client, server
    finally:
        server.handle_exit(signal.SIGTERM, None)
        await asyncio.wait_for(running, 10)
        app.state.draining = False


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, path: str, key: str | None, *, last_id: str | None = None, **query: str
) -> AsyncIterator[Events]:
    """An open stream. Leaving the block closes it."""
    headers = bearer(key) | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with client.stream("GET", path, headers=headers, params=query) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        events = Events()
        reading = asyncio.create_task(events.read(answer))
        try:
            await eventually(lambda: events.of("unread"), what="the stream has begun")
            yield events
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
