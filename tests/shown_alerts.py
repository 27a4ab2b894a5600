"""Alerts for tests, put where the notifier's worker puts them."""

from typing import Any
from uuid import UUID

from notifier_world import NotifierWorld

from aragora.contracts.ids import new_id
from notifier import queueing
from notifier.domain import Notice
from notifier.kinds import KINDS
from notifier.queueing import Told


async def show(world: NotifierWorld, org_id: str, *kinds: str, **more: Any) -> list[UUID]:
    """One alert of each kind, in this order; of a person or for operators if the kind is."""
    said = {"severity": "warning", "title": "Something", "message": "Something has happened."} | more
    told = [
        Told(
            org_id=org_id if KINDS[kind].audience in ("everybody", "administrators") else "platform",
            event_id=new_id(),
            occurred_at=world.clock(),
            notice=Notice(kind=kind, **said),
        )
        for kind in kinds
    ]
    async with world.pool.acquire() as connection, connection.transaction():
        await queueing.wait_for_turn(connection)
        await queueing.tell(connection, told, world.clock())
    return [each.event_id for each in told]
