"""Organizations with limits, a limit desk in this process to ask, and a way to ask one that runs elsewhere."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import msgspec
from metering_platform import MeteringPlatform
from nats.aio.client import Client
from one_service import ALL_SCOPES, JSON, bearer
from usage import NOON

from aragora.billing.pricebook import PriceBook
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import EntitlementsChanged, PlanPublished
from aragora.contracts.limits import CheckLimits, Reserve
from aragora.contracts.plans import Limit, Meter, Overage, Plan, built_in_meter
from metering import refold
from metering.entitlements import apply_entitlements, keep_plan, prepare_entitlements_session
from metering.limit_desk import LimitDesk
from metering.refold import Verdict

PRICES = PriceBook.load()
PEOPLE = Meter(name="people", aggregation="unique_users")
CUSTOM = {
    "first": {
        "exports": Meter(name="exports", aggregation="count", event_type="export"),
        "people": PEOPLE,
        "largest": Meter(name="largest", aggregation="max", quantity="tokens"),
    },
    "second": {
        "exports": Meter(name="exports", aggregation="count", event_type="report"),
        "people": Meter(name="people", aggregation="unique_users", event_type="debate"),
        "largest": Meter(name="largest", aggregation="max", quantity="tokens", providers=("openai",)),
    },
}
"""Meters that a catalog declares, and what the same names mean in another one."""
Amount = int | str | None


def limit(meter: str | Meter, amount: Amount, per: str = "organization", *, overage: str | None = None) -> Limit:
    """A limit on a built-in meter, by its name, or on a declared one. None: unlimited. `overage`: USD for one more."""
    found = built_in_meter(meter) if isinstance(meter, str) else meter
    price = None if overage is None else Overage(price_usd=Decimal(overage))
    return Limit(meter=found, limit=None if amount is None else Decimal(amount), per=per, overage=price)


def entitlements(*limits: Limit, revision: int = 1, plan: str = "test") -> EntitlementsChanged:
    """What billing would say."""
    return EntitlementsChanged(
        revision=revision, plan=plan, plan_version=1, plan_name=plan.title(), features={}, seats=None, limits=limits
    )


async def entitle(database_url: str, given: Mapping[str, EntitlementsChanged], now: datetime = NOON) -> None:
    """Let organizations have these entitlements, as the worker does when billing says so."""
    connection = await asyncpg.connect(database_url)
    try:
        await prepare_entitlements_session(connection)
        async with connection.transaction():
            await apply_entitlements(connection, list(given.items()), PRICES, now)
    finally:
        await connection.close()


@asynccontextmanager
async def limit_desk(database_url: str, clock: Callable[[], datetime] = lambda: NOON) -> AsyncIterator[LimitDesk]:
    """A desk as the API makes it, with a clock of the test's own."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool:
        yield LimitDesk(pool, PRICES, clock)


def reserve(*operations: Mapping[str, Any], **more: Any) -> Reserve:
    """A question, as it is written in JSON."""
    return msgspec.convert({"operations": list(operations), **more}, Reserve)


def check(*operations: Mapping[str, Any], **more: Any) -> CheckLimits:
    """A question, as it is written in JSON."""
    return msgspec.convert({"operations": list(operations), **more}, CheckLimits)


async def standing(database_url: str, org_id: str) -> dict[tuple[str, str, str], tuple[Decimal, Decimal]]:
    """What is (used, held) of an organization's limits, by (month, meter, user)."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            """
            SELECT month, meter, user_id, coalesce(u.used, 0) AS used, coalesce(h.held, 0) AS held
            FROM (SELECT month, meter, user_id, used FROM limit_usage WHERE org_id = $1) AS u
            FULL JOIN (SELECT month, meter, user_id, held FROM limit_holds WHERE org_id = $1) AS h
            USING (month, meter, user_id)
            """,
            org_id,
        )
    finally:
        await connection.close()
    return {(row["month"], row["meter"], row["user_id"]): (row["used"], row["held"]) for row in rows}


async def happened(database_url: str, org_id: str, kind: type[DomainEvent]) -> list[Any]:
    """The events of one type that metering has raised of an organization, in order."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT data::text AS fields FROM events WHERE org_id = $1 AND type = $2 ORDER BY position",
            org_id, kind.type_name,
        )  # fmt: skip
    finally:
        await connection.close()
    return [kind.model_validate_json(row["fields"]) for row in rows]


async def equal_to_log(database_url: str, now: datetime = NOON) -> Verdict:
    """What `verify` says, which is that everything is as it should be."""
    verdict = await refold.verify(database_url, connections=1, progress=lambda *_: None, now=now)
    assert verdict.equal, verdict.differences
    return verdict


async def publish_plans(database_url: str, *plans: Plan) -> None:
    """Let these be on sale, as billing says: what may be recommended, and which custom meters there are."""
    connection = await asyncpg.connect(database_url)
    try:
        for plan in plans:
            await keep_plan(connection, PlanPublished(plan=plan, source="catalog"))
    finally:
        await connection.close()


def plan(name: str, *limits: Limit, rank: int = 0, price: str = "0") -> Plan:
    """A plan on sale."""
    return Plan(
        plan=name, version=1, name=name.title(), rank=rank, price_usd_per_month=Decimal(price), seats=None, features={},
        limits=limits,
    )  # fmt: skip


class LimitAsker:
    """Puts the same question over HTTP and on the bus, and expects the same answer."""

    def __init__(self, platform: MeteringPlatform, bus: Client) -> None:
        self.platform = platform
        self.bus = bus

    async def ask(self, verb: str, question: Any, *, key: str | None = ALL_SCOPES) -> httpx.Response:
        """Over HTTP: `check`, `reserve`, `release`, `extend`. A body of bytes goes as it is."""
        post, headers = self.platform.client.post, bearer(key) | {"Content-Type": JSON}
        if verb in ("check", "reserve"):
            path = "limits/check" if verb == "check" else "reservations"
            content = question if isinstance(question, bytes) else json.dumps(question)
            return await post(f"/api/usage/{path}", content=content, headers=headers)
        params = {name: value for name, value in question.items() if name == "org_id"}
        body = {name: value for name, value in question.items() if name not in ("org_id", "reservation_id")}
        path = f"/api/usage/reservations/{quote(question['reservation_id'], safe='')}/{verb}"
        return await post(path, params=params, content=json.dumps(body), headers=headers)

    async def ask_on_the_bus(self, verb: str, question: Any) -> tuple[int, Any]:
        """The status and the answer."""
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        reply = msgspec.json.decode((await self.bus.request(f"rpc.metering.{verb}", body, timeout=5)).data)
        assert reply.keys() == {"status", "answer"}
        return reply["status"], reply["answer"]
