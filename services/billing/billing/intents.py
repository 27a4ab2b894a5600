"""What billing asks of Stripe: written down first, then asked under the id of what was written, then the answer kept.

Whoever dies on the way leaves a pending intent, and a worker asks again. Stripe knows the id as the idempotency key, so
that it is done once, however often it is asked. What follows from the answer is in one transaction with it.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import structlog

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool
from aragora.contracts.ids import new_id
from billing.attention import raise_attention
from billing.stripe_gateway import Json, StripeAway, StripeGateway, StripeRefused

queries = sql.load("billing", "sql/stripe.sql")

OWN_TURN = timedelta(seconds=60)
"""How long whoever wrote an intent has for it, before a worker takes it for abandoned."""
MAX_PAUSE_SECONDS = 600
BATCH = 50
_KEPT = ("id", "object", "status", "customer", "subscription", "invoice", "expires_at", "amount")
"""Of an answer. Nothing personal, and no addresses of pages, which are keys to them."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Intent:
    """Something that Stripe is to do. `parameters` are those of the kind."""

    org_id: str
    intent_id: str
    kind: str
    parameters: Json
    attempts: int = 0
    outcome: Json | None = None
    """What Stripe answered, if it has."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of intent is asked, and what follows from the answer, in one transaction with it."""

    ask: Callable[[StripeGateway, str, Intent], Awaitable[Json]]
    """Gets the idempotency key."""
    conclude: Callable[[Connection, Intent, Json, datetime], Awaitable[None]] | None = None


async def record(
    conn: Connection, org_id: str, kind: str, parameters: Mapping[str, Any], now: datetime, *,
    once: str | None = None, turn: timedelta = OWN_TURN,
) -> Intent:  # fmt: skip
    """Write an intent down, in the caller's transaction. One with the same `once` that exists already is returned.

    `turn`: for so long it is the caller's to carry out; then a worker does.
    """
    intent_id = str(new_id())
    row = await conn.fetchrow(
        queries.record_intent, org_id, intent_id, kind, once, msgspec.json.encode(parameters).decode(), now, now + turn
    )
    if row is None:
        row = await conn.fetchrow(queries.intent_once, org_id, once)
    if row is None:
        raise RuntimeError(f"neither written nor found: the intent {once!r} of {org_id}")
    return _intent(row)


async def ask(
    turn: Connection, pool: Pool, gateway: StripeGateway, kinds: Mapping[str, Kind], org_id: str, kind: str,
    parameters: Mapping[str, Any], now: datetime, *, once: str | None = None,
) -> Json:  # fmt: skip
    """Write an intent down, carry it out, keep the answer; returns what Stripe said, whole.

    It is written on the connection of the organization's turn, and so by nobody whose turn is over; the answer is kept
    all the same.

    Raises:
        StripeNotConfigured: nothing was written down.
        StripeAway: nobody knows whether it was done; a worker asks again until it is known.
        StripeRefused: it was not done.
    """
    gateway.demand()
    intent = await record(turn, org_id, kind, parameters, now, once=once)
    if intent.outcome is not None:
        return intent.outcome
    return await carry_out(pool, gateway, kinds, intent, now)


async def carry_out(
    pool: Pool, gateway: StripeGateway, kinds: Mapping[str, Kind], intent: Intent, now: datetime
) -> Json:
    """Ask Stripe, and keep the answer with what follows from it; raises as `ask` does."""
    kind = kinds[intent.kind]
    try:
        answer = await kind.ask(gateway, intent.intent_id, intent)
    except StripeRefused as refusal:
        said = {"code": refusal.code, "status": refusal.status}
        async with pool.acquire() as conn:
            await conn.execute(queries.finish_intent, intent.org_id, intent.intent_id, "refused", _json(said), now)
        raise
    outcome = {name: answer[name] for name in _KEPT if answer.get(name) is not None}
    async with pool.acquire() as conn, conn.transaction():
        finished = await conn.fetchval(
            queries.finish_intent, intent.org_id, intent.intent_id, "done", _json(outcome), now
        )
        if finished and kind.conclude is not None:  # once, if two have asked
            await kind.conclude(conn, intent, answer, now)
    return answer


async def carry_out_begun(
    turn: Connection, pool: Pool, gateway: StripeGateway, kinds: Mapping[str, Kind], org_id: str,
    names: Collection[str], now: datetime,
) -> list[Intent]:  # fmt: skip
    """Carry out what an organization's earlier request began and did not end, of these kinds. Returns what that was.

    So that nothing that was asked for long ago is done after what is asked for now. `turn`: see `ask`.

    Raises:
        StripeAway: it is not known whether all of it was done.
    """
    begun = [_intent(row) for row in await turn.fetch(queries.pending_intents_of, org_id, list(names))]
    for intent in begun:
        with suppress(StripeRefused):
            await carry_out(pool, gateway, kinds, intent, now)
    return begun


async def carry_out_due(pool: Pool, gateway: StripeGateway, kinds: Mapping[str, Kind], now: datetime) -> list[Intent]:
    """Carry out what nobody has: abandoned, or put off. Returns those that were done, or refused."""
    async with pool.acquire() as conn:
        rows = await conn.fetch(queries.take_due_intents, now, now + OWN_TURN, BATCH)
    ended = []
    for intent in map(_intent, rows):
        try:
            await carry_out(pool, gateway, kinds, intent, now)
        except StripeAway as error:
            pause = timedelta(seconds=min(MAX_PAUSE_SECONDS, 2**intent.attempts))
            async with pool.acquire() as conn:
                await conn.execute(queries.put_off_intent, intent.org_id, intent.intent_id, now + pause)
            _log.warning("stripe_away", kind=intent.kind, intent_id=intent.intent_id, reason=str(error))
            continue
        except StripeRefused as refusal:
            _log.warning("stripe_refused", kind=intent.kind, intent_id=intent.intent_id, code=refusal.code)
            async with pool.acquire() as conn:
                await raise_attention(conn, "request_refused", intent.intent_id, now, org_id=intent.org_id)
        ended.append(intent)
    return ended


def _intent(row: asyncpg.Record) -> Intent:
    outcome = msgspec.json.decode(row["outcome"]) if row["state"] == "done" else None
    parameters = msgspec.json.decode(row["parameters"])
    return Intent(row["org_id"], row["intent_id"], row["kind"], parameters, row["attempts"], outcome)


def _json(said: Json) -> str:
    return msgspec.json.encode(said).decode()
