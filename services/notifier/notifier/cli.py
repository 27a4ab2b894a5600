"""`notifier`: the service's commands."""

import typer
import uvloop
from rich.console import Console

from aragora.chassis import dead_letters_cli, telemetry, tracing
from aragora.chassis.commands import read_settings, with_database
from aragora.chassis.migrate import migrate as apply_migrations
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from notifier.preview_cli import preview
from notifier.settings import SERVICE, Settings

app = typer.Typer(help="Who must know: alerts, e-mail, signed webhooks.", no_args_is_help=True)
app.add_typer(dead_letters_cli.commands(SERVICE, Settings), name="dead-letters")
console = Console()
app.command()(preview)


@app.command()
def api() -> None:
    """Serve the HTTP API on ARAGORA_HOST:ARAGORA_PORT until SIGTERM."""
    from aragora.chassis.app import serve  # noqa: PLC0415 - see below
    from notifier.main import create_app  # noqa: PLC0415 - the other commands start without a web framework

    settings = _settings("notifier-api")
    uvloop.run(serve(create_app(settings), settings.host, settings.port, drain_seconds=settings.drain_seconds))


@app.command()
def worker() -> None:
    """Hear what people must know of, send mail and webhooks, until SIGTERM."""
    from notifier.worker import run_worker  # noqa: PLC0415 - see `api`

    uvloop.run(run_worker(_settings("notifier-worker")))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema."""

    async def bring(connection: Connection) -> None:
        for name in await apply_migrations(connection, "notifier"):
            console.print(f"applied {name}")

    with_database(_settings("notifier-migrate").database_url, bring)
    console.print("The database is up to date.")


@app.command()
def reseal() -> None:
    """Seal everything anew with the first of ARAGORA_SEALING_KEYS: after that, the others may be taken away."""
    from notifier.resealing import reseal_all  # noqa: PLC0415 - see `api`

    settings = _settings("notifier-reseal")

    async def seal(connection: Connection) -> None:
        count = await reseal_all(connection, Sealer(settings.sealing_keys, SERVICE))
        console.print(f"Sealed {count:,} secrets and addresses anew.")

    with_database(settings.database_url, seal)


@app.command("webhook-secret")
def webhook_secret() -> None:
    """Print the secret that signs what is sent to ARAGORA_NOTIFICATION_WEBHOOK."""
    from notifier.resealing import operator_secret  # noqa: PLC0415 - see `api`

    settings = _settings("notifier-webhook-secret")

    async def show(connection: Connection) -> None:
        secret = await operator_secret(connection, Sealer(settings.sealing_keys, SERVICE))
        if secret is None:
            console.print("There is no webhook: set ARAGORA_NOTIFICATION_WEBHOOK and start a worker.", style="red")
            raise typer.Exit(1)
        console.print(secret, highlight=False, markup=False, soft_wrap=True)

    with_database(settings.database_url, show)


def _settings(service: str) -> Settings:
    settings = read_settings(Settings)
    telemetry.configure(service, level=settings.log_level, format=settings.log_format)
    tracing.start(service)
    return settings


if __name__ == "__main__":
    app()
