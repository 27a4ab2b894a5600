"""`auth`: the service's commands."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.table import Column, Table

from aragora.chassis import dead_letters_cli, telemetry, tracing
from aragora.chassis.commands import read_settings, with_database
from aragora.chassis.database import open_pool
from aragora.chassis.migrate import migrate as apply_migrations
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection, Pool
from auth.settings import Settings

app = typer.Typer(help="Who you are: users, organizations, tokens, API keys, revocation.", no_args_is_help=True)
app.add_typer(dead_letters_cli.commands("auth", Settings), name="dead-letters")
console = Console()
REMEMBERED = timedelta(days=30)
"""As long as the bus keeps events."""


@app.command()
def api() -> None:
    """Serve the HTTP API on ARAGORA_HOST:ARAGORA_PORT until SIGTERM."""
    from aragora.chassis.app import serve  # noqa: PLC0415 - see below
    from auth.main import create_app  # noqa: PLC0415 - the other commands start without a web framework

    settings = _settings("auth-api")

    async def run() -> None:
        await serve(create_app(settings), settings.host, settings.port, drain_seconds=settings.drain_seconds)

    uvloop.run(run())


@app.command()
def worker() -> None:
    """Follow billing, write the letters that were asked for, publish what was decided, until SIGTERM."""
    from auth.worker import run_worker  # noqa: PLC0415 - see `api`

    uvloop.run(run_worker(_settings("auth-worker")))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema.

    With ARAGORA_OPERATOR_EMAIL and ARAGORA_OPERATOR_PASSWORD, make the operator's account if there is none.
    """
    settings = _settings("auth-migrate")

    async def bring(connection: Connection) -> None:
        for name in await apply_migrations(connection, "auth"):
            console.print(f"applied {name}")

    with_database(settings.database_url, bring)
    if settings.operator_email:
        _make_operator(settings, promote=False)
    console.print("The database is up to date.")


@app.command()
def operator(
    email: Annotated[str, typer.Argument(envvar="ARAGORA_OPERATOR_EMAIL", help="The account's e-mail address.")],
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Make it one like any other.")] = False,  # noqa: FBT002
) -> None:
    """Make an account an operator's, who may do everything; it is opened if there is none.

    Its password is that of ARAGORA_OPERATOR_PASSWORD, or asked for.
    """
    settings = _settings("auth-operator")
    if withdraw:
        from auth.operators import withdraw_operator  # noqa: PLC0415 - see `api`

        _with_pool(settings, lambda pool: withdraw_operator(pool, email, lambda: datetime.now(UTC)))
        console.print("The account is no operator's any more.")
        return
    password = settings.operator_password or typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    given = settings.model_copy(update={"operator_email": email, "operator_password": password})
    _make_operator(given, promote=True)
    console.print("The account is an operator's.")


def _make_operator(settings: Settings, *, promote: bool) -> None:
    from auth.operators import open_operator  # noqa: PLC0415 - see `api`

    _with_pool(settings, lambda pool: open_operator(pool, settings, lambda: datetime.now(UTC), promote=promote))


def _with_pool(settings: Settings, work: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    from auth.operators import UnusableOperator  # noqa: PLC0415 - see `api`

    async def run() -> None:
        async with open_pool(settings.database_url, min_size=1, max_size=1) as pool:
            await work(pool)

    try:
        asyncio.run(run())
    except UnusableOperator as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command()
def announce() -> None:
    """Say once more what was revoked in the last 30 days, for a bus that has lost its streams.

    Run it before the services start again on such a bus. Whoever knows it already is not disturbed.
    """
    from auth.acts import queries  # noqa: PLC0415 - see `api`

    async def say(connection: Connection) -> None:
        done = await connection.execute(queries.announce_revocations, datetime.now(UTC) - REMEMBERED)
        await connection.execute("SELECT pg_notify('outbox', '')")
        console.print(f"Announced {int(done.split()[-1]):,} revocations; a running auth publishes them.")

    with_database(_settings("auth-announce").database_url, say)


@app.command()
def messages(
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")] = False,  # noqa: FBT002
) -> None:
    """List the letters that wait to be sent, with their secrets. For operators: whoever has a secret can use it."""
    from auth.acts import queries  # noqa: PLC0415 - see `api`
    from auth.messages import token_of  # noqa: PLC0415 - see `api`

    settings = _settings("auth-messages")
    sealer = Sealer(settings.sealing_keys, "auth")

    async def show(connection: Connection) -> None:
        heads = ("to", "kind", "expires", "token")
        table = Table(*(Column(head, overflow="fold") for head in heads), title="Letters")
        for row in await connection.fetch(queries.waiting_letters, datetime.now(UTC), count):
            token = token_of(sealer, row["kind"], row["message_id"])
            expires = f"{row['expires_at']:%Y-%m-%dT%H:%M:%SZ}"
            if as_json:
                letter = {"to": row["email"], "kind": row["kind"], "expires_at": expires, "token": token}
                typer.echo(json.dumps(letter))
            table.add_row(row["email"], row["kind"], expires, token)
        if not as_json:
            console.print(table)

    with_database(settings.database_url, show)


def _settings(service: str) -> Settings:
    settings = read_settings(Settings)
    telemetry.configure(service, level=settings.log_level, format=settings.log_format)
    tracing.start(service)
    return settings


if __name__ == "__main__":
    app()
