"""Commands of the services, offered as ours: on the servers of the platform that runs here, where none are named."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from standalone import credentials, datadir
from standalone.problems import StandaloneError
from standalone.service_settings import environment

DEFAULT_DATA_DIR = Path(".data")
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="ARAGORA_DATA_DIR", help="Where everything is kept.", file_okay=False)
]
_EVERYTHING_ELSE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer()
notifier_app = typer.Typer(help="What people are told: see a letter, sign a webhook.", no_args_is_help=True)
app.add_typer(notifier_app, name="notifier")
errors = Console(stderr=True, highlight=False)


def said(error: StandaloneError) -> typer.Exit:
    """The end of a command for a reason that the operator can mend: one sentence, and exit code 1."""
    errors.print(Text("aragora: ", "red").append(str(error), "default"), soft_wrap=True)
    return typer.Exit(1)


def settings_here(data_dir: Path, service: str = "metering", *, account: str | None = None) -> dict[str, str]:
    """With which a service finds the servers of the platform that runs here. Raises `NotRunning`."""
    folder = data_dir.resolve()
    running = datadir.current_run(folder)
    return environment(credentials.read(folder), running, service, account=account)


@app.command()
def migrate(
    service: Annotated[str | None, typer.Argument(help="Whose; by default, those of all services.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Bring the databases to this version. `aragora up` does it by itself.

    DATABASE_URL, where it is set, names the database of one service, which must be named too.
    """
    _command_of_each("migrate", credentials.SERVICES, service, data_dir)


@app.command()
def announce(
    service: Annotated[str | None, typer.Argument(help="Which; by default, all that have something to say.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Say again what the bus may have lost: which tokens were revoked, what every organization may do.

    For a bus or a metering database that starts anew; repeating it is harmless. DATABASE_URL: as for `migrate`.
    """
    _command_of_each("announce", ("auth", "billing"), service, data_dir)


def _command_of_each(command: str, services: Sequence[str], service: str | None, data_dir: Path) -> None:
    """Run a command that several services have: that of one, or of all of the platform that runs here."""
    if service not in (None, *services):
        raise typer.BadParameter(f"{service!r} is none of {', '.join(services)}.")
    elsewhere = "DATABASE_URL" in os.environ
    if elsewhere and service is None:
        raise typer.BadParameter(f"DATABASE_URL names one database: say whose, as in `aragora {command} billing`.")
    for name in [service] if service else services:
        try:
            settings = {} if elsewhere else settings_here(data_dir, name)
        except StandaloneError as error:
            raise said(error) from error
        done = subprocess.run([sys.executable, "-P", "-m", name, command], env=os.environ | settings, check=False)
        if done.returncode != 0:
            raise typer.Exit(done.returncode)


def _service_command(
    service: str, name: str, does: str, among: typer.Typer = app, *, needs_servers: bool = True
) -> None:
    """Offer a service's own command as ours, with the servers of the running platform where none are named."""

    def become(context: typer.Context) -> None:
        _become(service, name, context.args, needs_servers=needs_servers)

    among.command(name, help=does, context_settings=_EVERYTHING_ELSE)(become)


def _become(service: str, name: str, arguments: Sequence[str], *, needs_servers: bool = True) -> None:
    if needs_servers and "--help" not in arguments and "DATABASE_URL" not in os.environ:
        try:
            os.environ.update(settings_here(datadir.default_data_dir(), service))
        except StandaloneError as error:
            raise said(error) from error
    os.execv(sys.executable, [sys.executable, "-P", "-m", service, name, *arguments])  # noqa: S606


@app.command("dead-letters", context_settings=_EVERYTHING_ELSE)
def dead_letters(context: typer.Context, service: Annotated[str, typer.Option(help="Whose.")] = "metering") -> None:
    """What a service could not handle, and why: list, show, retry, discard."""
    if service not in credentials.SERVICES:
        raise typer.BadParameter(f"{service!r} is none of {', '.join(credentials.SERVICES)}.")
    _become(service, "dead-letters", context.args)


_service_command("metering", "verify", "Fold the whole log again and compare: exit code 1 if a projection differs.")
_service_command("metering", "rebuild", "Make the projections what the log says.")
_service_command(
    "billing", "reconcile", "Compare every subscription with Stripe's, and repair what lost webhooks left."
)
_service_command("auth", "messages", "Letters that wait to be sent, each with the secret that it holds.")
_service_command(
    "notifier", "preview", "Write an e-mail of each kind, as it would be sent.", notifier_app, needs_servers=False
)
_service_command("notifier", "webhook-secret", "What signs the messages to the operator's webhook.", notifier_app)
_service_command("notifier", "reseal", "Seal everything with the newest of the sealing keys.", notifier_app)
