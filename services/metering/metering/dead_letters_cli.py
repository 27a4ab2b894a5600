"""`dead-letters`: what could not be recorded, for people at a terminal."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from aragora.chassis import dead_letters, telemetry
from aragora.chassis.commands import read_settings, with_database
from aragora.chassis.dead_letters import KeptLetter
from aragora.chassis.sql import Connection
from aragora.contracts import topology
from aragora.contracts.ids import new_id
from metering.settings import Settings

app = typer.Typer(name="dead-letters", help="Usage that could not be recorded, and why.", no_args_is_help=True)
console = Console()

LetterId = Annotated[UUID, typer.Argument(help="As `list` shows it.")]
Status = Annotated[str, typer.Option(help="open, retried, discarded or any.")]
OrgId = Annotated[str | None, typer.Option("--org", help="Only those of this organization.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at the most, the newest first.")]


@app.command("list")
def list_letters(status: Status = "open", org_id: OrgId = None, limit: Limit = 50) -> None:
    """List them, the newest first."""
    chosen = _status(status)

    async def show(connection: Connection) -> None:
        letters = await dead_letters.page(connection, status=chosen, org_id=org_id, limit=limit)
        table = Table("id", "status", "first seen", "organization", "field", "reason")
        for one in letters:
            seen = one.first_seen_at.isoformat(timespec="seconds")
            table.add_row(str(one.id), one.status, seen, one.org_id or "", one.field or "", one.reason)
        console.print(table if letters else "There are none.")

    _with_database(show)


@app.command()
def show(letter_id: LetterId) -> None:
    """Show one whole, with the message as it came."""

    async def print_it(connection: Connection) -> None:
        letter = await _known(connection, letter_id)
        for name in ("id", "status", "reason", "field", "org_id", "subject", "source_stream", "source_sequence"):
            console.print(f"{name:16} {getattr(letter, name)}", markup=False)
        console.print(letter.payload.decode(errors="replace"), markup=False, soft_wrap=True)

    _with_database(print_it)


@app.command()
def retry(letter_ids: Annotated[list[UUID], typer.Argument(help="One or more, as `list` shows them.")]) -> None:
    """Put them on the bus again, as they came. One that fails again is open again, with the new reason."""

    async def publish_again(connection: Connection) -> None:
        async with _bus() as publish:
            for letter_id in letter_ids:
                async with connection.transaction():
                    letter = await _resolve(connection, letter_id, "retried")
                    await publish(letter.subject, letter.payload)
                console.print(f"{letter_id} is on its way again.")

    _with_database(publish_again)


@app.command()
def discard(letter_ids: Annotated[list[UUID], typer.Argument(help="One or more, as `list` shows them.")]) -> None:
    """Close them without recording what they hold. They stay to be seen."""

    async def close(connection: Connection) -> None:
        for letter_id in letter_ids:
            await _resolve(connection, letter_id, "discarded")
            console.print(f"{letter_id} is discarded.")

    _with_database(close)


def _status(text: str) -> dead_letters.Status | None:
    match text:
        case "open" | "retried" | "discarded":
            return text
        case "any":
            return None
        case _:
            raise typer.BadParameter("must be open, retried, discarded or any", param_hint="--status")


async def _known(connection: Connection, letter_id: UUID) -> KeptLetter:
    letter = await dead_letters.fetch(connection, letter_id)
    if letter is None:
        console.print(f"There is no dead letter {letter_id}; `list --status any` shows all.")
        raise typer.Exit(1)
    return letter


async def _resolve(connection: Connection, letter_id: UUID, status: Literal["retried", "discarded"]) -> KeptLetter:
    letter = await _known(connection, letter_id)
    if not await dead_letters.resolve(connection, letter_id, status, at=datetime.now(UTC), by="command line"):
        console.print(f"{letter_id} is {letter.status} already; only an open one can be {status}.")
        raise typer.Exit(1)
    return letter


@asynccontextmanager
async def _bus() -> AsyncIterator[Callable[[str, bytes], Coroutine[Any, Any, object]]]:
    from metering.worker import connect_bus  # noqa: PLC0415 - listing starts without a web framework

    broker = connect_bus(Settings())
    await broker.connect()

    async def publish(subject: str, payload: bytes) -> object:
        # A new id: the bus still knows the old one, and would take this for a repeat.
        headers = {"Nats-Msg-Id": str(new_id())}
        return await broker.publish(payload, subject, headers=headers, stream=topology.USAGE.name, timeout=5)

    try:
        yield publish
    finally:
        await broker.stop()


def _with_database(work: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
    settings = read_settings(Settings)
    telemetry.configure("metering-dead-letters", level=settings.log_level, format=settings.log_format)
    with_database(settings.database_url, work)
