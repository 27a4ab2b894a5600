"""What is sealed at rest, as a whole: sealed anew after a rotation of keys, and the operator's secret, read."""

from aragora.chassis import sql
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection

PAGE = 500

queries = sql.load("notifier", "sql/resealing.sql")


async def reseal_all(connection: Connection, sealer: Sealer) -> int:
    """Seal every secret and address with the first key. Returns how many. It may be broken off and begun again.

    Raises:
        SealBroken: something is sealed with a key that is not in the list any more.
    """
    count = 0
    for page, keep in (
        (queries.sealed_contacts, queries.reseal_contact),
        (queries.sealed_names, queries.reseal_name),
        (queries.sealed_endpoints, queries.reseal_endpoint),
    ):
        last: tuple[str, str] = ("", "")
        while rows := await connection.fetch(page, *last, PAGE):
            async with connection.transaction():
                for row in rows:
                    sealed = [None if one is None else sealer.seal(sealer.open(one)) for one in list(row)[2:]]
                    # Whatever was changed meanwhile is sealed with the first key already.
                    await connection.execute(keep, *list(row), *sealed)
                    count += sum(one is not None for one in sealed)
            last = (rows[-1][0], rows[-1][1])
    return count


async def operator_secret(connection: Connection, sealer: Sealer) -> str | None:
    """The secret of the operator's own endpoint; None if there is none."""
    sealed = await connection.fetchval(queries.operator_secret)
    return None if sealed is None else sealer.open(sealed)
