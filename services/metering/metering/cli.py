"""`metering`: the service's commands. In the standalone, `aragora` has them too."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from aragora.chassis import dead_letters_cli, telemetry, tracing
from aragora.chassis.commands import read_settings
from aragora.chassis.database import open_pool
from aragora.chassis.migrate import migrate as apply_migrations
from metering import log_months, pricing_table, refold
from metering.refold import Verdict
from metering.settings import Settings

app = typer.Typer(help="What was used: ingest, rating, projections.", no_args_is_help=True)
app.add_typer(dead_letters_cli.commands("metering", Settings), name="dead-letters")
console = Console()
CORES = os.cpu_count() or 2
_Result = TypeVar("_Result")

Connections = Annotated[int, typer.Option(min=1, max=32, help="Connections that fold side by side.")]


@app.command()
def api() -> None:
    """Serve the HTTP API on ARAGORA_HOST:ARAGORA_PORT until SIGTERM."""
    from aragora.chassis.app import serve  # noqa: PLC0415 - see below
    from metering.main import create_app  # noqa: PLC0415 - the other commands start without a web framework

    settings = _settings("metering-api")
    serving = serve(create_app(settings), settings.host, settings.port, drain_seconds=settings.drain_seconds)
    uvloop.run(serving)


@app.command()
def worker() -> None:
    """Record usage from the bus until SIGTERM. To scale, start more of them."""
    from metering.worker import run_worker  # noqa: PLC0415 - see `api`

    uvloop.run(run_worker(_settings("metering-worker")))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema, with this month's partition and the price book's tables."""
    settings = _settings("metering-migrate")

    async def bring() -> list[str]:
        async with open_pool(settings.database_url, min_size=1, max_size=1) as pool:
            async with pool.acquire() as connection:
                applied = await apply_migrations(connection, "metering")
                await pricing_table.write(connection, settings.price_tables)
            await log_months.open_due_month(pool, datetime.now(UTC))
            return applied

    for name in uvloop.run(bring()):
        console.print(f"applied {name}")
    console.print("The database is up to date.")


@app.command()
def verify(connections: Connections = CORES) -> None:
    """Fold the whole log again and compare it with the projections, row by row. Exit code 1 if they differ."""
    settings = _settings("metering-verify")
    verdict = _with_progress("Folding the log", lambda progress: refold.verify(
        settings.database_url, connections=connections, progress=progress, now=datetime.now(UTC)
    ))  # fmt: skip
    _show(verdict)
    if not verdict.equal:
        console.print(f"[red]{verdict.different_rows} rows differ.[/] Run `rebuild` to mend them.")
        raise typer.Exit(1)
    console.print("[green]Equal: the projections are what the log says.[/]")


@app.command()
def rebuild(connections: Connections = CORES) -> None:
    """Make the projections what the log says. Recording waits meanwhile; nothing is lost, reading goes on."""
    settings = _settings("metering-rebuild")
    verdict = _with_progress("Folding the log", lambda progress: refold.rebuild(
        settings.database_url, connections=connections, progress=progress, now=datetime.now(UTC)
    ))  # fmt: skip
    _show(verdict)
    console.print(f"[green]Rebuilt: {verdict.different_rows} rows were wrong and are replaced.[/]")


def _settings(service: str) -> Settings:
    settings = read_settings(Settings)
    telemetry.configure(service, level=settings.log_level, format=settings.log_format)
    tracing.start(service)
    return settings


def _with_progress(title: str, work: Callable[[refold.Progress], Coroutine[Any, Any, _Result]]) -> _Result:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        return asyncio.run(work(lambda done, total: bar.update(task, completed=done, total=total)))


def _show(verdict: Verdict) -> None:
    console.print(
        f"{verdict.events:,} events in the log, {verdict.daily_rows:,} daily and {verdict.monthly_rows:,} monthly "
        f"rows, {verdict.limit_rows:,} of limits."
    )
    for one in verdict.differences:
        console.print(f"[red]{one.projection} {one.key}[/]\n  live:     {one.live}\n  from log: {one.refolded}")


if __name__ == "__main__":
    app()
