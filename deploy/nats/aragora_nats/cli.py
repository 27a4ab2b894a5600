"""`aragora-nats`: the bus of a deployment. `aragora topology` is the same for a platform on one machine."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client
from nats.errors import Error as NatsError
from rich.console import Console

from aragora_nats.configuration import STREAM_MAX_BYTES, accounts_file
from aragora_nats.connecting import connect_once
from aragora_nats.snapshots import SnapshotError, back_up, restore
from aragora_nats.topology import apply_topology

app = typer.Typer(
    name="aragora-nats",
    help=(
        "The bus of a deployment: its users, streams and consumers. NATS_URL, NATS_USER and NATS_PASSWORD say where it "
        "is, and as whom: `operator`."
    ),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
topology_app = typer.Typer(help="Streams and consumers.", no_args_is_help=True)
app.add_typer(topology_app, name="topology")
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Replicas = Annotated[int, typer.Option(min=1, max=5, help="Copies of each stream: 3 in a cluster.")]
MaxBytes = Annotated[int, typer.Option(min=1, help="Disk that each stream may take.")]


@app.command()
def config(
    path: Annotated[Path | None, typer.Argument(help="Where to write it; by default it is printed.")] = None,
) -> None:
    """Write `accounts.conf`: the users of the bus and what each may do, as this version declares them."""
    if path is None:
        console.file.write(accounts_file())
    else:
        path.write_text(accounts_file(), encoding="utf-8")


@topology_app.command("apply")
def apply(replicas: Replicas = 1, max_bytes: MaxBytes = STREAM_MAX_BYTES) -> None:
    """Make streams and consumers what this version declares. Repeating it is harmless."""

    async def work(client: Client) -> None:
        for line in await apply_topology(client.jetstream(), replicas=replicas, max_bytes=max_bytes):
            say(line)

    with_bus(work)


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="A new folder. What is in it is not encrypted.")]) -> None:
    """Write every stream, with its consumers and their positions, into a folder. Everybody goes on meanwhile."""

    async def work(client: Client) -> None:
        await back_up(client, folder, say)

    with_bus(work)


@app.command("restore")
def restore_streams(
    folder: Annotated[Path, typer.Argument(help="That `backup` wrote.")],
    replicas: Annotated[int | None, typer.Option(min=1, max=5, help="Copies, if the cluster's size differs.")] = None,
) -> None:
    """Make the streams of a backup again, on servers that have none of them."""

    async def work(client: Client) -> None:
        await restore(client, folder, say, replicas=replicas)

    with_bus(work)


def say(line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, soft_wrap=True)


def with_bus(work: Callable[[Client], Awaitable[None]]) -> None:
    """Do something with one connection to the bus that the environment names, from beginning to end.

    Raises:
        typer.Exit: the bus does not let us in, or refused what was asked; a line has said why.
    """

    async def run() -> None:
        url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
        user, password = os.environ.get("NATS_USER"), os.environ.get("NATS_PASSWORD")
        try:
            client = await connect_once(url, user=user, password=password)
        except (NatsError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            errors.print(
                f"NATS does not let us in ({reason}): check NATS_URL, NATS_USER, NATS_PASSWORD.",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(1) from error
        try:
            await work(client)
        except SnapshotError as error:
            errors.print(str(error), markup=False)
            raise typer.Exit(1) from error
        except NatsError as error:
            errors.print(f"NATS refused: {str(error) or type(error).__name__}", markup=False, soft_wrap=True)
            raise typer.Exit(1) from error
        finally:
            await client.close()

    asyncio.run(run())


if __name__ == "__main__":
    app()
