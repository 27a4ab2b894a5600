"""The `aragora` command."""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from aragora_nats import cli as bus
from aragora_nats.configuration import STREAM_MAX_BYTES
from standalone import credentials, datadir, demo, panel, platform, service_commands, stripe_settings
from standalone import status as status_report
from standalone.datadir import Running
from standalone.nats import OPERATOR
from standalone.platform import Options, Platform
from standalone.problems import NotRunning, StandaloneError
from standalone.service_commands import DEFAULT_DATA_DIR, DataDir, said, settings_here
from standalone.service_settings import mailbox_url, operator_account

console = Console(highlight=False)

app = typer.Typer(
    name="aragora",
    help="Aragora Billing on one machine: usage goes in, what it cost comes out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
topology_app = typer.Typer(help="The bus: its streams and consumers.", no_args_is_help=True)
app.add_typer(topology_app, name="topology")
app.add_typer(service_commands.app)

Port = Annotated[int, typer.Option(min=1, max=65535, help="Where the HTTP API listens.")]
Host = Annotated[str, typer.Option(help="The address it listens on; 0.0.0.0 opens it to the network.")]
Workers = Annotated[
    int | None, typer.Option(min=1, max=64, help="Metering workers; by default half the cores, at least 2.")
]
FixedPort = Annotated[int | None, typer.Option(min=1, max=65535, help="By default the usual one, or a free one.")]
SimulateStripe = Annotated[
    bool, typer.Option("--simulate-stripe", help="With a stand-in for Stripe: plans can be paid, nothing is charged.")
]


def say(line: str) -> None:
    """Print a line of progress. A terminal that has gone away is no reason to stop."""
    try:
        console.print(line, markup=False, soft_wrap=True)
    except OSError:
        return


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it. What the operator can mend is one sentence and exit code 1; everything else is a bug and says so."""
    try:
        asyncio.run(work)
    except StandaloneError as error:
        raise said(error) from error


async def _up(options: Options, while_up: Callable[[Running, asyncio.Event, str], Coroutine[Any, Any, None]]) -> None:
    with datadir.claimed(options.data_dir):
        secrets = credentials.read_or_make(options.data_dir)
        started = Platform(options, secrets, say)

        async def shown(running: Running, stop: asyncio.Event) -> None:
            console.print(panel.welcome(running, secrets, options.data_dir, started.opened_folders))
            await while_up(running, stop, secrets.service_key)

        await platform.run(started, say, shown)
        say(f"Stopped. The data is in {options.data_dir}.")


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Port = 8000,
    host: Host = "127.0.0.1",
    workers: Workers = None,
    postgres_port: FixedPort = None,
    nats_port: FixedPort = None,
    simulate_stripe: SimulateStripe = False,  # noqa: FBT002  a flag
) -> None:
    """Start everything and stay until Ctrl-C: Postgres, NATS, the APIs and the workers of all services.

    The first start makes the database and the passwords; later ones find everything as it was.
    """

    async def wait(_: Running, stop: asyncio.Event, __: str) -> None:
        await stop.wait()

    options = Options(data_dir.resolve(), host, port, workers, postgres_port, nats_port, simulate_stripe)
    _run(_up(options, wait))


@app.command(name="demo")
def run_demo(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Port = 8000,
    workers: Workers = None,
    rate: Annotated[float, typer.Option(min=1, max=50_000, help="Usage events per second.")] = 200,
    seconds: Annotated[float | None, typer.Option(min=1, help="How long; by default until Ctrl-C.")] = None,
) -> None:
    """Show it working, through the HTTP API: five sample organizations and their live traffic, and one that pays.

    It joins the `aragora up` of this data directory, or else starts one, with a stand-in for Stripe unless Stripe
    itself is set up, and stops it afterwards.
    """
    folder = data_dir.resolve()

    async def traffic(running: Running, stop: asyncio.Event, key: str) -> None:
        letters = mailbox_url(credentials.read(folder), running)
        await demo.run(
            running.url, key, stripe=running.stripe, mailbox_url=letters, rate=rate, seconds=seconds, stop=stop,
            console=console,
        )  # fmt: skip

    async def join_or_start() -> None:
        try:
            running = datadir.current_run(folder)
        except NotRunning:
            simulate = not stripe_settings.set_by_operator()
            # Its endpoint is in this process. Who runs a demo has nobody in it who would look around with webhooks.
            options = Options(
                folder, port=port, workers=workers, simulate_stripe=simulate, webhook_networks="127.0.0.0/8"
            )
            await _up(options, traffic)
        else:
            say(f"Sending traffic to {running.url}.")
            await demo.until_interrupted(lambda stop: traffic(running, stop, credentials.read(folder).service_key))

    _run(join_or_start())


@app.command()
def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002  a flag
) -> None:
    """What runs, in which version, on which ports, how healthy, and how far behind. Exit code 1 if it is not ready."""

    async def show() -> None:
        report = await status_report.report(data_dir.resolve())
        if as_json:
            print(json.dumps(report, indent=2))  # noqa: T201  rich would wrap it
        else:
            console.print(panel.status(report))
        if not report["ready"]:
            raise typer.Exit(1)

    _run(show())


@app.command(name="bench")
def run_bench(
    events: Annotated[int, typer.Option(min=2_000_000, help="How far the log grows.")] = 10_000_000,
    workers: Workers = None,
    organizations: Annotated[int, typer.Option(min=16, help="Organizations that the usage is of.")] = 200,
    report_dir: Annotated[Path | None, typer.Option(help="Write benchmarks.md, .json and .svg there.")] = None,
) -> None:
    """Measure this machine: throughput beside raw COPY, freshness, queries, rebuild. On servers of its own."""
    # Seldom needed and slow to import: the other commands should not wait for it.
    from standalone.bench import command as bench  # noqa: PLC0415
    from standalone.bench import report as bench_report  # noqa: PLC0415
    from standalone.bench.load import Shape  # noqa: PLC0415

    async def measure() -> None:
        report = await bench.run(events=events, workers=workers, shape=Shape(organizations), say=say)
        console.print(bench_report.table(report))
        if report_dir is not None:
            bench_report.write(report, report_dir)

    _run(measure())


@app.command()
def key(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the operator's service key, as in: curl -H "Authorization: Bearer $(aragora key)" ..."""
    print(_credentials_here(data_dir).service_key)  # noqa: T201  for the shell


@app.command()
def password(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print the password that the operator's account was made with."""
    print(operator_account(_credentials_here(data_dir))[1])  # noqa: T201  for the shell


def _credentials_here(data_dir: Path) -> credentials.Credentials:
    try:
        return credentials.read(data_dir.resolve())
    except FileNotFoundError:
        raise said(NotRunning(f"{data_dir} has no keys yet: `aragora up` makes them.")) from None
    except StandaloneError as error:
        raise said(error) from error


@topology_app.command("apply")
def apply(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    replicas: bus.Replicas = 1,
    max_bytes: bus.MaxBytes = STREAM_MAX_BYTES,
) -> None:
    """Make the streams and consumers of NATS_URL, or of the running platform, what this version declares.

    NATS_USER and NATS_PASSWORD must be of a user that may change streams (`operator`).
    """
    if "NATS_URL" not in os.environ:
        try:
            os.environ.update(settings_here(data_dir, account=OPERATOR))
        except StandaloneError as error:
            raise said(error) from error
    bus.apply(replicas, max_bytes)
