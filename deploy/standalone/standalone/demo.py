"""Live traffic of five sample organizations, sent through the real HTTP API, and the story of one that pays.

Each organization has a plan. A debate asks before it is held: it is reserved, held, and settled by its usage event; one
past a limit is refused and never takes place. Everything else is reported as it was used.
"""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.text import Text

from standalone.demo_sample import ORGANIZATIONS, question, sample_event
from standalone.demo_story import tell
from standalone.demo_view import Standing, Tally, standing, total, view

TICK_SECONDS = 0.1
LARGEST_BATCH = 250
MOST_DEBATES = 5
"""In one batch: each asks by itself, and a demo is no benchmark."""
SENDERS = 8

Event = dict[str, Any]


async def run(
    url: str, key: str, *, stripe: Mapping[str, str], mailbox_url: str, rate: float, seconds: float | None,
    stop: asyncio.Event, console: Console,
) -> None:  # fmt: skip
    """Send `rate` events per second until the time is up or `stop` is set, then wait until all are counted.

    The seed of the traffic is random: it is a show, not a test. `stripe` is what billing is told of the stand-in;
    `mailbox_url` where letters are read.
    """
    tally, standings, story = Tally(), dict[str, Standing](), list[str]()
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=SENDERS + 2)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10, limits=limits) as client:
        await _enroll(client, stop, tally)
        await _read_standings(client, standings)
        before = total(standings, "total_events")
        watching = asyncio.create_task(_watch_standings(client, standings))
        telling = asyncio.create_task(tell(url, key, mailbox_url, stripe, story.append))

        def is_over() -> bool:
            is_counted = total(standings, "total_events") - before >= tally.accepted
            return stop.is_set() or (is_counted and telling.done())

        try:
            with Live(view(tally, standings), console=console, refresh_per_second=4, transient=False) as live:
                async for _ in _send(client, rate, seconds, stop, tally):
                    live.update(view(tally, standings, story))
                while not is_over():
                    await asyncio.sleep(TICK_SECONDS)
                    live.update(view(tally, standings, story))
        finally:
            watching.cancel()
            telling.cancel()
            await asyncio.gather(watching, telling, return_exceptions=True)
    if not console.is_terminal:
        console.print()
    if tally.failed:
        console.print(Text(f"The API refused the traffic: {tally.failed}", "red"))
    console.print(f"{tally.accepted:,} events sent and counted in this run.")
    if tally.refused:
        console.print(f"{tally.refused.total():,} debates were refused, at the limits of their plans.")


async def _enroll(client: httpx.AsyncClient, stop: asyncio.Event, tally: Tally) -> None:
    """Give each organization the plan on its rung of the ladder, unless it has one from an earlier run."""
    plans = await _ask(client, "GET", "/api/subscription/plans", None, stop, tally)
    if plans is None:
        return
    ladder = [plan["id"] for plan in plans.json()["data"]]
    for org_id, organization in ORGANIZATIONS.items():
        path = f"/api/subscription/organizations/{org_id}/subscription"
        if (await client.get(path)).status_code == httpx.codes.NOT_FOUND:
            rung = min(organization.rung, len(ladder) - 1)
            await _ask(client, "PUT", path, {"plan": ladder[rung]}, stop, tally)


async def _send(
    client: httpx.AsyncClient, rate: float, seconds: float | None, stop: asyncio.Event, tally: Tally
) -> AsyncIterator[None]:
    """Every tick, send what is due; yield after each. If the platform is slower than the rate, the rate gives way."""
    chance = random.Random()  # noqa: S311  traffic, not secrets
    started_at = time.monotonic()
    due = 0.0
    last = started_at
    sending: set[asyncio.Task[None]] = set()
    while not stop.is_set() and not tally.failed and (seconds is None or time.monotonic() - started_at < seconds):
        now = time.monotonic()
        due = min(due + (now - last) * rate, max(rate, LARGEST_BATCH))
        last = now
        while due >= 1 and len(sending) < SENDERS:
            # Single events and batches alike, as in life.
            size = min(int(due), chance.choice((1, 1, 10, LARGEST_BATCH)))
            due -= size
            moment = datetime.now(UTC)
            events = [sample_event(chance, moment) for _ in range(size)]
            sending.add(task := asyncio.create_task(_use(client, events, stop, tally)))
            task.add_done_callback(sending.discard)
        await asyncio.sleep(TICK_SECONDS if due < 1 else 0.005)
        yield
    await asyncio.gather(*sending)
    yield


async def _use(client: httpx.AsyncClient, events: list[Event], stop: asyncio.Event, tally: Tally) -> None:
    """Ask for the debates, and report what took place."""
    debates = [event for event in events if event["event_type"] == "debate"][:MOST_DEBATES]
    held = await asyncio.gather(*(_is_allowed(client, event, stop, tally) for event in debates))
    used = [event for event in events if event["event_type"] != "debate"]
    used += [event for event, allowed in zip(debates, held, strict=True) if allowed]
    if not used:
        return
    started_at = time.monotonic()
    body = used if len(used) > 1 else used[0]
    # The ids stay the same, so trying again never counts twice.
    if await _ask(client, "POST", "/api/usage/events", body, stop, tally):
        tally.add(len(used), time.monotonic() - started_at)


async def _is_allowed(client: httpx.AsyncClient, event: Event, stop: asyncio.Event, tally: Tally) -> bool:
    """Reserve what the call will take. If it may be made, its event names the reservation, which it settles."""
    answer = await _ask(client, "POST", "/api/usage/reservations", question(event), stop, tally)
    if answer is None:
        return False
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        tally.refused[event["org_id"]] += 1
        return False
    event["reservation_id"] = answer.json()["reservation_id"]
    return True


async def _ask(
    client: httpx.AsyncClient, method: str, path: str, body: object, stop: asyncio.Event, tally: Tally
) -> httpx.Response | None:
    """Send until it is answered. None if the demo stops before, or if the answer says that there is no point."""
    while True:
        try:
            answer = await client.request(method, path, json=body)
        except httpx.TransportError:
            answer = None
        if answer is not None and (answer.is_success or answer.status_code == httpx.codes.TOO_MANY_REQUESTS):
            return answer
        # An organization that has just been given a plan is unknown to metering for a moment: 404.
        if answer is not None and answer.is_client_error and answer.status_code != httpx.codes.NOT_FOUND:
            tally.failed = f"{answer.status_code} {answer.text[:500]}"
        if tally.failed or stop.is_set():
            return None
        tally.retried += 1
        await asyncio.sleep(1)


async def _read_standings(client: httpx.AsyncClient, standings: dict[str, Standing]) -> None:
    for org_id, organization in ORGANIZATIONS.items():
        totals = await client.get(f"/api/usage/organizations/{org_id}/summary")
        month = await client.get(f"/api/subscription/dashboard/{organization.people[0]}", params={"org_id": org_id})
        if totals.is_success:
            standings[org_id] = standing(totals.json()["data"], month.json()["data"] if month.is_success else None)


async def _watch_standings(client: httpx.AsyncClient, standings: dict[str, Standing]) -> None:
    while True:
        try:
            await _read_standings(client, standings)
        except httpx.TransportError:
            standings.clear()
        await asyncio.sleep(0.5)


async def until_interrupted(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Do the work; Ctrl-C and SIGTERM set the event it gets."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(stop)
