"""`dead-letters`: the same commands for every service. What it could not handle, and why, for people at a terminal."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol
from uuid import UUID

import nats.errors
import typer
from nats.js import JetStreamContext

from aragora.chassis import dead_letters, telemetry
from aragora.chassis.commands import read_settings, with_database
from aragora.chassis.dead_letters import KeptLetter, NotTaken, Status
from aragora.chassis.sql import Connection
from aragora.contracts.topology import ACCOUNTS

_SHOWN = ("id", "status", "reason", "field", "org_id", "subject", "source_stream", "source_sequence", "attempts")

LetterId = Annotated[UUID, typer.Argument(help="As `list` shows it.")]
LetterIds = Annotated[list[UUID], typer.Argument(help="One or more, as `list` shows them.")]
StatusText = Annotated[str, typer.Option("--status", help="open, retried, discarded or any.")]
OrgId = Annotated[str | None, typer.Option("--org", help="Only those of this organization.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at the most, the newest first.")]


class ServiceSettings(Protocol):
    """What these commands need of a service's settings."""

    @property
    def database_url(self) -> str: ...

    @property
    def nats_url(self) -> str: ...

    @property
    def nats_user(self) -> str | None: ...

    @property
    def nats_password(self) -> str | None: ...

    @property
    def log_level(self) -> str: ...

    @property
    def log_format(self) -> str: ...


def commands(service: str, settings: Callable[[], ServiceSettings]) -> typer.Typer:
    """The commands for one service, on its own database and with its own user of the bus."""
    app = typer.Typer(help=f"What {service} could not handle, and why.", no_args_is_help=True)

    def run(work: Callable[[Connection, ServiceSettings], Coroutine[Any, Any, None]]) -> None:
        given = read_settings(settings)
        telemetry.configure(f"{service}-dead-letters", level=given.log_level, format=given.log_format)
        with_database(given.database_url, lambda connection: work(connection, given))

    @app.command("list")
    def list_letters(status: StatusText = "open", org_id: OrgId = None, limit: Limit = 50) -> None:
        """List them, the newest first: two lines for each."""
        chosen = _status(status)

        async def show_all(connection: Connection, _: ServiceSettings) -> None:
            letters = await dead_letters.page(connection, status=chosen, org_id=org_id, limit=limit)
            for one in letters:
                seen = one.first_seen_at.isoformat(timespec="seconds")
                typer.echo("  ".join(filter(None, (str(one.id), one.status, seen, one.subject, one.org_id))))
                typer.echo("    " + ": ".join(filter(None, (one.field, one.reason))))
            if not letters:
                typer.echo("There are none.")

        run(show_all)

    @app.command()
    def show(letter_id: LetterId) -> None:
        """Show one whole, with the message as it came."""

        async def print_it(connection: Connection, _: ServiceSettings) -> None:
            letter = await _known(connection, letter_id)
            for name in _SHOWN:
                typer.echo(f"{name:16} {getattr(letter, name)}")
            typer.echo(letter.payload.decode(errors="replace"))

        run(print_it)

    @app.command()
    def retry(letter_ids: LetterIds) -> None:
        """Have its worker handle them again, as they came. One that fails again is open again, with the new reason."""

        async def send_again(connection: Connection, given: ServiceSettings) -> None:
            async with _bus(service, given) as bus:
                for letter_id in letter_ids:
                    letter = await _known(connection, letter_id)
                    at = datetime.now(UTC)
                    if not await dead_letters.retry(connection, letter, service, bus, at=at, by="command line"):
                        raise _said(f"{letter.id} is {letter.status} already; only an open one can be retried.")
                    typer.echo(f"{letter_id} is on its way again.")

        try:
            run(send_again)
        except NotTaken as error:
            raise _said(str(error)) from error
        except (nats.errors.Error, OSError) as error:
            reason = str(error) or type(error).__name__
            raise _said(
                f"A server did not answer ({reason}). What was not said to be on its way stays open."
            ) from error

    @app.command()
    def discard(letter_ids: LetterIds) -> None:
        """Close them without handling what they hold. They stay to be seen."""

        async def close(connection: Connection, _: ServiceSettings) -> None:
            for letter_id in letter_ids:
                letter, at = await _known(connection, letter_id), datetime.now(UTC)
                if not await dead_letters.resolve(connection, letter.id, "discarded", at=at, by="command line"):
                    raise _said(f"{letter.id} is {letter.status} already; only an open one can be discarded.")
                typer.echo(f"{letter_id} is discarded.")

        run(close)

    return app


def _status(text: str) -> Status | None:
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
        raise _said(f"There is no dead letter {letter_id}; `list --status any` shows all.")
    return letter


def _said(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(1)


@asynccontextmanager
async def _bus(service: str, settings: ServiceSettings) -> AsyncIterator[JetStreamContext]:
    from aragora.chassis.bus import connect_bus  # noqa: PLC0415 - FastStream, for who sends something

    (account,) = (each for each in ACCOUNTS if each.name == service)
    broker = connect_bus(settings.nats_url, settings.nats_user, settings.nats_password, account)
    try:
        yield (await broker.connect()).jetstream()
    finally:
        await broker.stop()
