"""The Postgres primary is killed under load and its synchronous standby promoted, again and again: nothing that was
acknowledged is lost, nothing counts twice, and every service goes on by itself within seconds.

The seed is printed; ARAGORA_FAULT_SEED replays it.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import asyncpg
import pytest
from auth_platform import CHEAP_HASHES
from postgres_cluster import PostgresPair
from promises import complaints, judge
from separate_services import PROCESSES, SERVICES, SeparateServices, separate_services
from servers import eventually, scratch_dir
from traffic import Traffic

from aragora.chassis import store
from aragora.chassis.migrate import migrate
from aragora.chassis.relay import Relay
from aragora.chassis.sql import Pool
from aragora.chassis.store import VersionConflict
from aragora.chassis.transient import is_transient
from aragora.contracts.events import UserRegistered
from standalone.postgres import Database

RECOVERY_SECONDS = 30
"""At most, from when commits are possible again until everything was done anew. On an idle machine it is two."""
DATABASE = Database("aragora_test", "test")


@pytest.fixture
async def pair() -> AsyncIterator[PostgresPair]:
    """A primary and its standby, with one database that has the chassis' schema."""
    async with scratch_dir() as folder:
        servers = PostgresPair(folder)
        try:
            await servers.start()
            await servers.create_databases([DATABASE])
            connection = await asyncpg.connect(servers.url_of(DATABASE))
            await migrate(connection)
            await connection.close()
            yield servers
        finally:
            await servers.stop()


class Company:
    """Appends events, and two relays of which one publishes them. What it publishes is in `said`, by id."""

    def __init__(self, pool: Pool) -> None:
        self.said: list[str] = []
        self.appended = 0
        self._pool = pool

    async def publish(self, _subject: str, _body: bytes, headers: dict[str, str]) -> None:
        self.said.append(headers["Nats-Msg-Id"])

    async def append(self, stream: str) -> bool:
        """Whether a stream's only event is there. Whatever goes wrong must be what passes by itself."""
        happened = datetime.now(UTC)
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await store.append(
                    connection, stream, 0, [UserRegistered(user_id=stream)], org_id="o", occurred_at=happened
                )
        except VersionConflict:
            pass
        except Exception as error:
            if not is_transient(error):
                raise
            return False
        self.appended += 1
        return True

    async def append_on(self, name: str, ended: asyncio.Event) -> None:
        """One event after another, each until it is there."""
        while not ended.is_set():
            stream = f"{name}/{self.appended}"
            await eventually(lambda: self.append(stream), 30)  # noqa: B023  it is waited for here


async def test_the_relay_goes_on_after_a_failover(pair: PostgresPair):
    async with AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(asyncpg.create_pool(pair.url_of(DATABASE), min_size=0, max_size=5))
            for _ in range(2)
        ]
        company = Company(pools[0])
        for pool in pools:
            relay = Relay(pool, company.publish)
            relay.start()
            stack.push_async_callback(relay.stop)
        ended = asyncio.Event()
        appending = [asyncio.create_task(company.append_on(str(number), ended)) for number in range(3)]
        await eventually(lambda: len(company.said) > 100, 20)
        began = time.monotonic()
        await pair.fail_over(waiting=False)
        before, said = company.appended, len(company.said)
        await eventually(lambda: company.appended > before + 100 and len(company.said) > said + 100, 20)
        print(f"after {time.monotonic() - began:.1f} s events are appended and published again")
        ended.set()
        await asyncio.gather(*appending)
        stored = await pools[0].fetch("SELECT id FROM events ORDER BY position")
        assert len(stored) == company.appended
        await eventually(lambda: set(company.said) == {str(row["id"]) for row in stored}, 20)


async def test_nothing_is_said_before_the_standby_has_it(pair: PostgresPair):
    """A command gives up waiting for a standby that is away: its event is there, and would be lost in a failover."""
    async with asyncpg.create_pool(pair.url_of(DATABASE), min_size=0, max_size=5) as pool:
        company = Company(pool)
        relay = Relay(pool, company.publish)
        relay.start()
        await pair.standby.kill()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE "
        command = asyncio.create_task(company.append("given-up"))
        await eventually(lambda: pair.primary.execute(f"{waits} 'COMMIT%'"), 20, what="it waits for the standby")
        command.cancel()
        with pytest.raises(asyncio.CancelledError):
            await command
        assert await pool.fetchval("SELECT count(*) FROM events") == 1
        relay_waits = f"{waits} '%FROM outbox%'"
        await eventually(lambda: pair.primary.execute(relay_waits), 20, what="the relay waits for the standby")
        assert company.said == []
        await pair.standby.start()
        await eventually(lambda: company.said, 20)
        await relay.stop()


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_primaries_killed_in_turn_lose_nothing():
    seed = int(os.environ.get("ARAGORA_FAULT_SEED") or random.randrange(2**32))
    print(f"seed {seed} (replay: ARAGORA_FAULT_SEED={seed})")
    rnd = random.Random(seed)
    async with scratch_dir() as folder:
        pair = PostgresPair(folder)
        async with separate_services(pair, CHEAP_HASHES) as parts:
            await parts.start()
            traffic = Traffic({service: [parts.url(f"{service}-api")] for service in SERVICES}, rnd)
            traffic.start()
            try:
                for turn in range(10):
                    print("undisturbed", await traffic.goes_on())
                    await kill_the_primary(pair, traffic, rnd, turn)
                    await parts.ready()
            finally:
                await traffic.stop()
                print(traffic.happened, *(line for line in parts.said if "ended" in line), sep="\n")
            await judge(parts, traffic, list(SERVICES))
            print(f"{len(traffic.used):,} events, {len(traffic.reserved)} limits, {len(traffic.people)} people")
            no_process_minded(parts)


async def kill_the_primary(pair: PostgresPair, traffic: Traffic, rnd: random.Random, turn: int) -> None:
    """Kill it at a random moment, promote the other, and bring it back. Returns when everything goes on."""
    waiting, rewinding = turn % 2 == 0, rnd.random() < 0.7
    began = time.monotonic()
    await pair.fail_over(waiting=waiting)
    promoted = time.monotonic() - began
    if waiting:
        await pair.rejoin(rewinding=rewinding)
    possible = time.monotonic() - began
    seconds = await traffic.goes_on()
    if not waiting:
        await pair.rejoin(rewinding=rewinding)
    print("commits waited for the old one" if waiting else "the new one worked alone", "rewound" * rewinding)
    print(f"promoted after {promoted:.1f} s, commits after {possible:.1f} s, then everything anew after {seconds}")
    assert max(seconds.values()) < RECOVERY_SECONDS


def no_process_minded(parts: SeparateServices) -> None:
    """None has crashed, and none logged an error: what passes by itself is a warning."""
    assert {name: found for name in PROCESSES if (found := complaints(parts.log(name)))} == {}
    assert [line for line in parts.said if "ended" in line] == []
