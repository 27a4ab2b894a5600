"""Who follows alerts live: one LISTEN per process, and one question to Postgres for all streams that are open.

A notification only says that there is something to look for, and every few seconds one looks anyway: what a stream is
sent follows from the position up to which it was sent everything. Who reads too slowly is dropped, and comes back with
the id of the last event.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import structlog
from fastapi import FastAPI

from aragora.chassis.problems import Problem
from aragora.chassis.relay import backoff
from aragora.chassis.sql import Pool
from aragora.contracts.events import PLATFORM
from notifier import alerts, answers
from notifier.callers import Reader

PAGE = 100
"""Alerts of one stream that are read at once."""
MAX_WAITING = 200
"""Events that wait for a slow reader before it is dropped."""
LOOK_SECONDS = 2.0
TICK_SECONDS = 0.25
"""How soon it is noticed that the service is to stop."""

log = structlog.get_logger(__name__)


def alert_event(alert: answers.Alert) -> bytes:
    """The event of an alert. Its id is where the stream goes on."""
    return b"id: %d\nevent: alert\ndata: %b\n\n" % (alert.position, msgspec.json.encode(alert))


def unread_event(unread: int) -> bytes:
    """The event of a number of unread alerts."""
    return b'event: unread\ndata: {"unread_count":%d}\n\n' % unread


@dataclass(eq=False)
class Stream:
    """One open stream. `position`: it was sent everything up to there."""

    reader: Reader
    position: int = 0
    unread: int = 0
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, event: bytes) -> None:
        """Send an event as soon as the reader takes it; a stream for which too many wait ends."""
        try:
            self.waiting.put_nowait(event)
        except asyncio.QueueFull:
            self.ended.set()

    def show(self, found: list[answers.Alert]) -> None:
        """Send alerts, in their order."""
        for alert in found:
            self.offer(alert_event(alert))
            self.position = alert.position

    def count(self, unread: int) -> None:
        """Send how many are unread, if that is another number than before."""
        if unread != self.unread:
            self.unread = unread
            self.offer(unread_event(unread))


class AlertStreams:
    """All streams of this process."""

    def __init__(self, app: FastAPI, pool: Pool) -> None:
        self.heartbeat_seconds = 15.0
        self.max_streams = 2000
        self.max_streams_each = 5
        self._app = app
        self._pool = pool
        self._open: set[Stream] = set()
        self._live: set[Stream] = set()
        self._people: Counter[str] = Counter()
        self._organizations: Counter[str] = Counter()
        self._woken = asyncio.Event()
        self._news: set[str] = set()
        self._marked: set[str] = set()
        self._look_at_all = self._count_all = False

    @property
    def pool(self) -> Pool:
        """The service's connections."""
        return self._pool

    async def open(self, reader: Reader, after: int | None) -> Stream:
        """A stream, from a position on, or from now on. It is to be given back with `forget`.

        Raises:
            Problem: 429, the person has too many already; 503, the process has, or is stopping.
        """
        if self._app.state.draining:
            raise Problem(503, "The service is stopping; connect again.", headers={"Retry-After": "1"})
        if len(self._open) >= self.max_streams:
            raise Problem(503, "Too many streams are open here; try again.", headers={"Retry-After": "5"})
        if self._people[reader.user_id] >= self.max_streams_each:
            detail = f"The person has {self.max_streams_each} streams already; close one, or share one between tabs."
            raise Problem(429, detail, headers={"Retry-After": "15"})
        stream = Stream(reader)
        self._open.add(stream)
        self._people[reader.user_id] += 1
        try:
            stream.position = await alerts.newest_position(self._pool, reader) if after is None else after
            (stream.unread,) = await alerts.count_unread(self._pool, [reader])
        except BaseException:
            self.forget(stream)
            raise
        return stream

    def follow(self, stream: Stream) -> None:
        """From now on the stream is offered what comes, and first what has come since its position."""
        self._live.add(stream)
        self._organizations[stream.reader.org_id] += 1
        self._wake(stream.reader.org_id)

    def forget(self, stream: Stream) -> None:
        """The stream has ended."""
        self._open.discard(stream)
        self._people -= Counter((stream.reader.user_id,))
        if stream in self._live:
            self._live.discard(stream)
            self._organizations -= Counter((stream.reader.org_id,))

    def end_all(self) -> None:
        """Every stream ends, with what it was sent so far."""
        for stream in self._open:
            stream.ended.set()

    async def listen(self) -> None:
        """Hear of alerts, and of alerts that were read, for ever."""
        failures = 0
        while True:
            try:
                async with self._pool.acquire() as connection:
                    lost = asyncio.Event()
                    connection.add_termination_listener(lambda *_, lost=lost: lost.set())
                    await connection.add_listener("alerts", lambda *heard: self._wake(heard[-1]))
                    await connection.add_listener("alert_reads", lambda *heard: self._recount(heard[-1]))
                    self._look_at_all = self._count_all = True
                    failures = 0
                    self._woken.set()
                    try:
                        await lost.wait()
                    finally:
                        connection.terminate()  # ends the listening at once, whatever state the connection is in
            except Exception as error:  # noqa: BLE001  streams that nobody tells anything would be an outage nobody sees
                log.warning("alerts_not_heard", reason=repr(error), detail="listening again")
            failures += 1
            await asyncio.sleep(backoff(failures))

    async def look(self) -> None:
        """Offer every stream what is new, for ever."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            if self._app.state.draining:
                self.end_all()
            if loop.time() - looked_at >= LOOK_SECONDS:
                self._look_at_all = True
            if self._look_at_all:
                looked_at = loop.time()
            try:
                await self._offer_news()
            except Exception as error:  # noqa: BLE001  as above
                log.warning("alerts_not_read", reason=repr(error), detail="looking again")
                self._look_at_all = self._count_all = True

    async def _offer_news(self) -> None:
        news, marked = self._news, self._marked
        look_at_all, count_all = self._look_at_all, self._count_all
        self._news, self._marked = set(), set()
        self._look_at_all = self._count_all = False
        asked = [each for each in self._live if look_at_all or each.reader.org_id in news]
        counted = [each for each in self._live if count_all or each.reader.user_id in marked]
        if asked:
            pages = await alerts.read_after(self._pool, [(each.reader, each.position) for each in asked], PAGE)
            for stream, page in zip(asked, pages, strict=True):
                stream.show(page)
                if page:
                    counted.append(stream)
                if len(page) == PAGE:
                    self._wake(stream.reader.org_id)
        if counted:
            unread = await alerts.count_unread(self._pool, [each.reader for each in counted])
            for stream, count in zip(counted, unread, strict=True):
                stream.count(count)

    def _wake(self, org_id: str) -> None:
        if org_id in self._organizations:
            self._news.add(org_id)
            self._woken.set()
        elif org_id == PLATFORM and self._live:  # of one person, who may be looking from anywhere
            self._look_at_all = True
            self._woken.set()

    def _recount(self, user_id: str) -> None:
        if user_id in self._people:
            self._marked.add(user_id)
            self._woken.set()


@asynccontextmanager
async def following_alerts(app: FastAPI, pool: Pool) -> AsyncIterator[None]:
    """Gives the application its `AlertStreams`, which hear what is new while the block runs."""
    app.state.notifier_alert_streams = streams = AlertStreams(app, pool)
    tasks = [asyncio.create_task(streams.listen()), asyncio.create_task(streams.look())]
    try:
        yield
    finally:
        streams.end_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
