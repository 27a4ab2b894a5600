"""The answer that goes on: one person's alerts as Server-Sent Events."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import Response
from starlette.types import Receive, Scope, Send

from aragora.chassis.problems import Problem
from aragora.chassis.transient import is_transient
from notifier import alerts, answers
from notifier.alert_following import PAGE, AlertStreams, Stream, alert_event, unread_event

SLOW_SECONDS = 30.0
"""How long a reader may take nothing at all."""
END_SECONDS = 0.5
TRUSTED_SECONDS = 1.0
"""For how long nobody asks again whether the reader may be told, while there is something to tell."""
HEARTBEAT = b": heartbeat\n\n"
RETRY = b"retry: 3000\n\n"

StillGood = Callable[[], Awaitable[bool]]


class EventStream(Response):
    """The answer that goes on until the reader leaves, is too slow, is not trusted any more, or the service stops."""

    media_type = "text/event-stream"

    def __init__(self, streams: AlertStreams, stream: Stream, still_good: StillGood) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._streams = streams
        self._stream = stream
        self._still_good = still_good

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        writing = asyncio.create_task(self._write(send))
        ending = [asyncio.create_task(self._stream.ended.wait()), asyncio.create_task(_left(receive))]
        try:
            await asyncio.wait({writing, *ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.forget(self._stream)
            for task in (writing, *ending):
                task.cancel()
            *_, failure = await asyncio.gather(*ending, writing, return_exceptions=True)
        if isinstance(failure, Exception) and not is_transient(failure):
            raise failure
        with suppress(OSError):  # who takes nothing is not told that it was all
            async with asyncio.timeout(END_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        async def out(events: bytes) -> None:
            async with asyncio.timeout(SLOW_SECONDS):
                await send({"type": "http.response.body", "body": events, "more_body": True})

        stream, loop = self._stream, asyncio.get_running_loop()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await out(RETRY + unread_event(stream.unread))
        page: list[answers.Alert] | None = None
        while page is None or len(page) == PAGE:
            (page,) = await alerts.read_after(self._streams.pool, [(stream.reader, stream.position)], PAGE)
            if page:
                await out(b"".join(map(alert_event, page)))
                stream.position = page[-1].position
        self._streams.follow(stream)
        looked_at = loop.time()
        while True:
            events = b""
            with suppress(TimeoutError):
                async with asyncio.timeout(self._streams.heartbeat_seconds):
                    events = await stream.waiting.get()
            while not stream.waiting.empty():
                events += stream.waiting.get_nowait()
            if not events or loop.time() - looked_at >= TRUSTED_SECONDS:
                try:
                    if not await self._still_good():
                        return
                except Problem:
                    return
                looked_at = loop.time()
            await out(events or HEARTBEAT)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
