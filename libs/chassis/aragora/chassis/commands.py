"""What the commands of a service begin with: its settings, and a connection to its database."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import ValidationError

from aragora.chassis.database import connect
from aragora.chassis.sql import Connection

_Settings = TypeVar("_Settings")


def read_settings(settings: Callable[[], _Settings]) -> _Settings:
    """The service's settings, from the environment.

    Raises:
        SystemExit: one of them is wrong; a line for each has said which, and what to do.
    """
    try:
        return settings()
    except ValidationError as error:
        for each in error.errors():
            cause = str(each.get("ctx", {}).get("error", each["msg"]))
            sys.stderr.write(f"{'.'.join(map(str, each['loc']))}: {cause}\n")
        raise SystemExit(1) from None


def with_database(url: str, work: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
    """Do something with one connection to a database, from beginning to end."""

    async def run() -> None:
        connection = await connect(url)
        try:
            await work(connection)
        finally:
            await connection.close()

    asyncio.run(run())
