"""`billing`: the service's commands."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.table import Column, Table

from aragora.chassis import dead_letters_cli, telemetry, tracing
from aragora.chassis.commands import read_settings, with_database
from aragora.chassis.migrate import migrate as apply_migrations
from aragora.chassis.sql import Connection
from aragora.contracts.plans import Plan
from billing import plans, subscriptions
from billing.catalog import CatalogError
from billing.settings import CATALOGS, Settings, read_catalog
from billing.stripe_gateway import StripeAway, StripeNotConfigured, StripeRefused

app = typer.Typer(help="What is owed: plans, subscriptions, entitlements.", no_args_is_help=True)
app.add_typer(dead_letters_cli.commands("billing", Settings), name="dead-letters")
console = Console()
PAGE = 500
CHOICE = typer.Argument(metavar="[NAME|FILE]", envvar="ARAGORA_CATALOG", help=f"{' or '.join(CATALOGS)}, or a file.")


@app.command()
def api() -> None:
    """Serve the HTTP API on ARAGORA_HOST:ARAGORA_PORT until SIGTERM."""
    from aragora.chassis.app import serve  # noqa: PLC0415 - see below
    from billing.main import create_app  # noqa: PLC0415 - the other commands start without a web framework

    settings = _settings("billing-api")
    serving = serve(create_app(settings), settings.host, settings.port, drain_seconds=settings.drain_seconds)
    uvloop.run(serving)


@app.command()
def worker() -> None:
    """Enroll new organizations, end what ends, publish what was decided, until SIGTERM."""
    from billing.worker import run_worker  # noqa: PLC0415 - see `api`

    uvloop.run(run_worker(_settings("billing-worker")))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema, and publish what the plan catalog says anew."""
    settings = _settings("billing-migrate")

    async def bring(connection: Connection) -> None:
        for name in await apply_migrations(connection, "billing"):
            console.print(f"applied {name}")
        found = read_catalog(settings.catalog)
        for plan in await subscriptions.publish_catalog(connection, found, now=datetime.now(UTC)):
            console.print(f"published {plan.plan}, version {plan.version}")

    with_database(settings.database_url, bring)
    console.print("The database is up to date.")


@app.command()
def announce() -> None:
    """Say once more what is sold and what every organization may do, for consumers that begin anew.

    The bus forgets after 30 days. Whoever knows it already is not disturbed: nothing gets a new version or revision.
    """
    settings = _settings("billing-announce")

    async def say(connection: Connection) -> None:
        known = await subscriptions.load_plans(connection)
        for plan in known.ids:
            await subscriptions.publish(connection, plan, plans.announce, now=datetime.now(UTC))
        count, last = 0, ""
        while page := await connection.fetch(subscriptions.queries.organizations_after, last, PAGE):
            for row in page:
                await subscriptions.announce(connection, row["org_id"], known, now=datetime.now(UTC))
            count, last = count + len(page), page[-1]["org_id"]
        console.print(f"Announced {len(known.ids)} plans and {count:,} organizations; a running worker publishes it.")

    with_database(settings.database_url, say)


@app.command()
def reconcile() -> None:
    """Compare every subscription with Stripe's, and repair what lost webhooks left.

    The worker does so by itself once a day.
    """
    from billing.reconciling import reconcile_all  # noqa: PLC0415 - see `api`

    settings = _settings("billing-reconcile")
    try:
        found = uvloop.run(reconcile_all(settings, datetime.now(UTC)))
    except (StripeNotConfigured, StripeAway, StripeRefused) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(
        f"{found.subscriptions:,} live subscriptions at Stripe; {len(found.repaired):,} organizations repaired."
    )
    for org_id in found.repaired:
        console.print(f"  repaired {org_id}", highlight=False)
    for subscription in found.unknown:
        console.print(
            f"  {subscription} is nobody's here: see who its customer is in Stripe's dashboard", highlight=False
        )


@app.command()
def catalog(choice: Annotated[str, CHOICE] = CATALOGS[0]) -> None:
    """Check a plan catalog, and show its plans."""
    try:
        found = read_catalog(choice)
    except CatalogError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    heads = ("plan", "name", "USD a month", "seats", "features", "limits a month")
    table = Table(*(Column(head, overflow="fold") for head in heads), title=found.name)
    for plan in found.plans:
        table.add_row(plan.plan, plan.name, f"{plan.price_usd_per_month:f}", _or_unlimited(plan.seats), *_granted(plan))
    console.print(table)


def _granted(plan: Plan) -> tuple[str, str]:
    limits = [
        f"{limit.meter.name} {_or_unlimited(limit.limit)}" + (" per user" if limit.per == "user" else "")
        for limit in plan.limits
    ]
    return "\n".join(name for name, granted in plan.features.items() if granted), "\n".join(limits)


def _or_unlimited(amount: Any) -> str:
    return "unlimited" if amount is None else f"{amount:,f}" if not isinstance(amount, int) else f"{amount:,}"


def _settings(service: str) -> Settings:
    settings = read_settings(Settings)
    telemetry.configure(service, level=settings.log_level, format=settings.log_format)
    tracing.start(service)
    return settings


if __name__ == "__main__":
    app()
