"""All at once that can be done to endpoints, while messages come and go: nobody waits for ever, nothing is left."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_network

import asyncpg
import pytest
from servers import PostgresServer, eventually
from webhook_lanes import SECRET, LanesWorld, lanes_world, notice
from webhook_receiver import Receiver, receiver

from aragora.chassis.sql import Connection
from aragora.contracts.ids import new_id
from notifier import deliveries, endpoints, housekeeping, queueing
from notifier.endpoints import Changes
from notifier.queueing import Told

HERE = (ip_network("127.0.0.0/8"),)
SEED = int(os.environ.get("ARAGORA_TEST_SEED", "20261122"))
KEYS = [(f"org_{org}", f"ep_{endpoint}") for org in range(4) for endpoint in range(3)]
GONE = "org_3"
SHORT, LONG = 300, 6_000

REFUSED = (endpoints.EndpointDisabled, endpoints.UnknownEndpoint, endpoints.TestWaits, deliveries.NotWaiting,
           deliveries.UnknownDelivery)  # fmt: skip
UNSENT = "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'"
Act = Callable[[Connection], Awaitable[object]]


class Storm:
    """What is done, by the seed, to the endpoints of a world."""

    def __init__(self, world: LanesWorld, pool: asyncpg.Pool, urls: list[str], chance: random.Random) -> None:
        self.world, self.pool, self.urls, self.chance = world, pool, urls, chance

    async def act(self, times: int) -> None:
        for _ in range(times):
            (org, endpoint), now = self.chance.choice(KEYS), self.world.clock()
            found = await self.pool.fetch(
                "SELECT delivery_id FROM webhook_deliveries WHERE org_id = $1 AND endpoint_id = $2 "
                "ORDER BY position DESC LIMIT 20", org, endpoint,
            )  # fmt: skip
            delivery_id = self.chance.choice(found)[0] if found else new_id()
            url, since, keep = self.chance.choice(self.urls), now - timedelta(days=1), timedelta(hours=1)
            acts: list[Act] = [
                lambda it: endpoints.change(it, self.world.sealer, org, endpoint, Changes(url=url), now),  # noqa: B023
                lambda it: endpoints.rotate_secret(it, self.world.sealer, org, endpoint, keep, now),  # noqa: B023
                lambda it: endpoints.disable(it, org, endpoint, now),  # noqa: B023
                lambda it: endpoints.enable(it, org, endpoint, now),  # noqa: B023
                lambda it: endpoints.send_test(it, org, endpoint, now),  # noqa: B023
                lambda it: deliveries.redeliver(it, org, endpoint, delivery_id, now),  # noqa: B023
                lambda it: deliveries.redeliver_since(
                    it, org, endpoint, now, statuses=["delivered", "failed"], since=since  # noqa: B023
                ),
                lambda it: deliveries.skip(it, org, endpoint, delivery_id, now),  # noqa: B023
                lambda it: it.execute(housekeeping.queries.forget_webhooks, now - timedelta(seconds=2)),  # noqa: B023
                self._replace,
            ]  # fmt: skip
            with suppress(*REFUSED):
                async with self.pool.acquire() as connection, connection.transaction():
                    await self.chance.choice(acts)(connection)

    async def tell(self, times: int) -> None:
        for _ in range(times):
            now = self.world.clock()
            orgs = [f"org_{self.chance.randrange(4)}" for _ in range(self.chance.randint(1, 6))]
            told = [Told(org_id=org, event_id=new_id(), occurred_at=now, notice=notice()) for org in orgs]
            await self.world.tell_all(told, now)
            self.world.clock.advance(timedelta(seconds=self.chance.randint(0, 30)))

    async def _replace(self, connection: Connection) -> None:
        """An organization is deleted; and so that there is something to do, another one comes in its place."""
        await queueing.wait_for_turn(connection)
        await connection.execute("DELETE FROM webhook_endpoints WHERE org_id = $1", GONE)
        for org, endpoint in KEYS:
            if org == GONE:
                url = self.world.sealer.seal(self.chance.choice(self.urls))
                secret, now = self.world.sealer.seal(SECRET), self.world.clock()
                add = endpoints.queries.add_endpoint
                await connection.execute(add, org, endpoint, url, "", [], "standard", secret, now, "user_1")


@pytest.fixture
async def bad() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


@pytest.mark.parametrize("times", [SHORT, pytest.param(LONG, marks=pytest.mark.long)])
async def test_nobody_waits_for_ever_and_nothing_is_left(
    postgres_server: PostgresServer, notifier_template: str, bad: Receiver, times: int
):
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    bad.status = lambda _: chance.choice([200, 200, 200, 500, 410, 503])
    async with lanes_world(postgres_server, notifier_template) as world, receiver() as good:
        urls = [good.url, bad.url]
        for org, endpoint in KEYS:
            await world.endpoint(chance.choice(urls), org, endpoint)
        await world.endpoint(good.url, "platform", "operator")
        url = postgres_server.url_of(await world.pool.fetchval("SELECT current_database()"))
        async with asyncpg.create_pool(url, min_size=1, max_size=8) as pool, world.work(3, networks=HERE):
            storm = Storm(world, pool, urls, chance)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(storm.act(times // 4))
                tasks.create_task(storm.tell(times // 2))
            bad.status = 200
            for org, endpoint in KEYS:
                async with pool.acquire() as connection, connection.transaction():
                    await endpoints.enable(connection, org, endpoint, world.clock())
            await eventually(lambda: _nothing_waits(pool), 20, what="everything is delivered")
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert await world.pool.fetchval(deadlocks) == 0


async def _nothing_waits(pool: asyncpg.Pool) -> bool:
    return await pool.fetchval(UNSENT) == 0
