"""Coupons: a code that gives a credit, to each organization once."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import asyncpg

from aragora.chassis.sql import Connection
from billing import invoice_answers as answers
from billing import ledger
from billing.ledger import Entry, queries
from billing.money import USD


class CouponExists(Exception):
    """There is a coupon with this code, and it says something else. Choose another code."""


class UnknownCoupon(Exception):
    """No coupon has this code. Check the spelling."""


class NotRedeemable(Exception):
    """The coupon is no good (any more) for this organization. The message says why."""


@dataclass(frozen=True, slots=True)
class Coupon:
    """What a code is good for: `amount` in USD, so many times in all, until a moment (excluded). None: no end."""

    code: str
    amount: Decimal
    max_redemptions: int | None
    redeem_by: datetime | None


async def create(conn: Connection, coupon: Coupon, created_by: str, now: datetime) -> None:
    """Create a coupon; the same one again changes nothing.

    Raises:
        CouponExists: see there.
    """
    made = await conn.fetchval(
        queries.create_coupon, coupon.code, coupon.amount, USD, coupon.max_redemptions, coupon.redeem_by, now,
        created_by,
    )  # fmt: skip
    if made:
        return
    row = await conn.fetchrow(queries.hold_coupon, coupon.code)
    if row is None or Coupon(coupon.code, row["amount"], row["max_redemptions"], row["redeem_by"]) != coupon:
        raise CouponExists(f"There is a coupon {coupon.code} already, and it says something else: choose another code.")


async def redeem(conn: Connection, org_id: str, code: str, recorded_by: str, now: datetime) -> Entry:
    """Give the organization what the coupon is good for. Returns the entry of the ledger.

    Of many who want the last redemption at once, one gets it.

    Raises:
        UnknownCoupon, NotRedeemable: nothing was done.
    """
    async with conn.transaction():
        await ledger.hold(conn, org_id)
        row = await conn.fetchrow(queries.hold_coupon, code)
        if row is None:
            raise UnknownCoupon(f"No coupon is called {code}: check the spelling.")
        entry = Entry(f"coupon/{code}", "coupon", row["amount"], f"coupon {code}", recorded_by, now, coupon=code)
        if await ledger.find(conn, org_id, entry.entry_id) is not None:
            raise NotRedeemable("The organization has redeemed this coupon already; each may do so once.")
        if row["redeem_by"] is not None and row["redeem_by"] <= now:
            raise NotRedeemable(f"The coupon was good until {row['redeem_by']:%Y-%m-%d %H:%M} UTC.")
        if row["max_redemptions"] is not None:
            redeemed: int = await conn.fetchval(queries.redemptions_of, code)
            if redeemed >= row["max_redemptions"]:
                raise NotRedeemable("The coupon is used up.")
        await conn.execute(queries.redeem, org_id, code, entry.entry_id, now)
        await ledger.grant(conn, org_id, entry)
    return entry


async def read(conn: Connection, code: str) -> answers.Coupon:
    """A coupon that there is, and how often it was redeemed."""
    row = await conn.fetchrow(queries.coupon, code)
    if row is None:
        raise UnknownCoupon(f"No coupon is called {code}: check the spelling.")
    return _shown(row)


async def latest(conn: Connection, limit: int) -> list[answers.Coupon]:
    """The coupons there are, the newest first."""
    return [_shown(row) for row in await conn.fetch(queries.coupons, limit)]


def _shown(row: asyncpg.Record) -> answers.Coupon:
    return answers.Coupon(**{name: row[name] for name in answers.Coupon.__struct_fields__})
