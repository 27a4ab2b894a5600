"""The data directory: who holds it, and what runs on it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from standalone import machine
from standalone.machine import GIB, MIB
from standalone.problems import AlreadyRunning, DataDirUnusable, NotEnoughDisk, NotRunning

NEEDED_BYTES = GIB
"""Free disk without which nothing is started."""


@dataclass(frozen=True, slots=True)
class Running:
    """What `aragora up` started, for `aragora status` and for the next start, which takes the same ports again."""

    pid: int
    host: str
    port: int
    postgres_port: int
    nats_port: int
    monitoring_port: int
    services: dict[str, int] = field(default_factory=dict)
    """Process ids by the child's name."""
    stripe: dict[str, str] = field(default_factory=dict)
    """What billing is told of the stand-in for Stripe, by variable; empty if there is none."""
    smtp_port: int | None = None
    """Where the local mailbox takes letters; None if there is none, because the operator has named a mail server."""
    smtp_ca_file: str = ""
    """The certificate that it has."""
    mailbox_port: int | None = None
    """Where it shows them."""
    webhook_networks: str = ""
    """Networks that webhook endpoints may be in although they are not public, beside those that the operator named."""
    is_prepared: bool = False
    """Whether databases and bus are what this version needs. The gateway is launched before, and waits for it."""

    @property
    def url(self) -> str:
        """Where the platform's HTTP API answers."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104  compared, not bound
        return f"http://{host}:{self.port}"

    @property
    def stripe_url(self) -> str:
        """Where the stand-in for Stripe answers; empty if there is none."""
        return self.stripe.get("STRIPE_API_BASE", "")

    @property
    def stripe_port(self) -> int | None:
        """Its port."""
        return urlsplit(self.stripe_url).port


def default_data_dir() -> Path:
    """ARAGORA_DATA_DIR, else `.data` in the current directory."""
    return Path(os.environ.get("ARAGORA_DATA_DIR") or ".data")


@contextmanager
def claimed(data_dir: Path) -> Iterator[None]:
    """Hold the directory for one `aragora up`; made when absent. The kernel lets go of it when the process ends.

    Raises:
        AlreadyRunning: another one holds it.
        DataDirUnusable: it cannot be made or written.
        NotEnoughDisk: less than 1 GiB is free.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+")
    except OSError as error:
        raise DataDirUnusable(
            f"{data_dir} cannot be used: {error.strerror or error}. "
            "Make it writable for this user, or choose another with --data-dir or ARAGORA_DATA_DIR."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            last = last_run(data_dir)
            at = f" (pid {last.pid}, {last.url})" if last else ""
            raise AlreadyRunning(
                f"Another `aragora up` runs on {data_dir}{at}. Use that one, stop it with Ctrl-C there, "
                "or give this one its own --data-dir and --port."
            ) from error
        free = machine.free_disk_bytes(data_dir)
        if free < NEEDED_BYTES:
            raise NotEnoughDisk(
                f"Only {free // MIB} MiB are free where {data_dir} lies, and at least {NEEDED_BYTES // MIB} MiB are "
                "needed. Free some space, or choose another disk with --data-dir."
            )
        yield


def remember(data_dir: Path, running: Running) -> None:
    """Write down what runs."""
    unfinished = data_dir / "running.json.new"
    unfinished.write_text(json.dumps(asdict(running), indent=2) + "\n")
    unfinished.replace(data_dir / "running.json")


def last_run(data_dir: Path) -> Running | None:
    """What ran last on this directory, or still runs; None if nothing ever did."""
    try:
        return Running(**json.loads((data_dir / "running.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def prepared_run(data_dir: Path) -> Running:
    """What ran last or runs, once it is prepared: waits for that. Raises `NotRunning` where nothing ever ran."""
    while run := last_run(data_dir):
        if run.is_prepared:
            return run
        time.sleep(0.02)
    raise NotRunning(f"{data_dir} says nothing of servers: `aragora up` starts them, and this.")


def current_run(data_dir: Path) -> Running:
    """What runs now. Raises `NotRunning`."""
    last = last_run(data_dir)
    try:
        with (data_dir / "lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        if last is not None:
            return last
    except OSError:
        last = None
    raise NotRunning(f"Nothing runs on {data_dir}. Start it with `aragora up`, or name its --data-dir.")
