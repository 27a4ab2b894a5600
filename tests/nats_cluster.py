"""Three NATS servers as one cluster, each of which can be killed, frozen and started again."""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import servers
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from servers import NATS_PASSWORDS, eventually

from aragora.contracts.topology import CONSUMERS, STREAMS
from aragora_nats.configuration import Cluster, configuration
from aragora_nats.connecting import connect_once
from aragora_nats.topology import apply_topology
from standalone import machine
from standalone.child import Child, Program, log_for
from standalone.nats import server_binary

STREAM_MAX_BYTES = 2 * 1024**3


@dataclass
class Server:
    """One of them. Its ports stay the same for as long as the cluster lives."""

    name: str
    port: int = field(default_factory=machine.free_port)
    cluster_port: int = field(default_factory=machine.free_port)
    monitoring_port: int = field(default_factory=machine.free_port)
    encryption_key: str | None = None
    child: Child | None = None

    @property
    def running(self) -> Child:
        """Its process."""
        assert self.child is not None, "it was never started"
        return self.child


class NatsCluster:
    """`folder` holds each server's streams and log."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.servers = [Server(f"nats-{number}") for number in range(size)]
        self._folder = folder
        self._secret = f"cluster-{secrets.token_urlsafe(12)}"
        self._http = httpx.AsyncClient(timeout=2)

    @property
    def addresses(self) -> str:
        """What services are told: every server, without a user."""
        return ",".join(f"nats://127.0.0.1:{server.port}" for server in self.servers)

    def url(self, account: str = "operator") -> str:
        """Every server, with an account's name and password."""
        return ",".join(
            f"nats://{account}:{NATS_PASSWORDS[account]}@127.0.0.1:{server.port}" for server in self.servers
        )

    async def connect(self, account: str = "operator") -> Client:
        """A client that tries once, of whichever server answers."""
        return await connect_once(self.url(account), inbox_prefix=f"_INBOX.{account}")

    async def start(self) -> None:
        """Start all, and return when the streams are there, with a copy on each."""
        await asyncio.gather(*map(self.start_server, self.servers))
        await eventually(self.meta_leader, 60, what="a cluster with a leader")
        client = await self.connect()
        try:
            await eventually(lambda: self._topology_applied(client), 60)
        finally:
            await client.close()
        await self.until_whole()

    async def _topology_applied(self, client: Client) -> bool:
        with suppress(NatsError, TimeoutError):
            bus = client.jetstream(timeout=20)
            return bool(await apply_topology(bus, replicas=len(self.servers), max_bytes=STREAM_MAX_BYTES))
        return False

    async def start_server(self, server: Server) -> None:
        """Start one, also after it was killed. It may take a while to catch up: see `until_whole`."""
        store = self.store(server)
        store.mkdir(exist_ok=True)
        config = self._folder / f"{server.name}.conf"
        routes = tuple(f"127.0.0.1:{other.cluster_port}" for other in self.servers)
        cluster = Cluster(server.cluster_port, routes, self._secret) if len(self.servers) > 1 else None
        config.write_text(
            configuration(
                str(store),
                server.port,
                NATS_PASSWORDS,
                monitoring_port=server.monitoring_port,
                server_name=server.name,
                cluster=cluster,
                encryption_key=server.encryption_key,
            )
        )
        program = Program(server.name, [str(server_binary()), "--config", str(config)], {})
        server.child = Child(program, log_for(self._folder, server.name))
        await server.child.start()

    def store(self, server: Server) -> Path:
        """Where its streams are."""
        return self._folder / server.name

    async def kill(self, server: Server) -> None:
        """SIGKILL it."""
        await server.running.kill()

    def freeze(self, server: Server) -> None:
        """It goes on existing and says nothing more, as behind a cable that was pulled."""
        psutil.Process(server.running.pid).send_signal(signal.SIGSTOP)

    def thaw(self, server: Server) -> None:
        """It goes on where it was."""
        psutil.Process(server.running.pid).send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End all."""
        for server in self.servers:
            if server.child is not None and server.child.running:
                self.thaw(server)
        await asyncio.gather(*(server.child.stop(5) for server in self.servers if server.child is not None))
        await self._http.aclose()

    # What the servers say.

    async def page(self, server: Server, path: str) -> Any:
        """One of its monitoring pages; None while it does not answer, or says that it is not well."""
        with suppress(httpx.HTTPError):
            answer = await self._http.get(f"http://127.0.0.1:{server.monitoring_port}{path}")
            return answer.json() if answer.is_success else None
        return None

    async def pages(self, path: str) -> list[Any]:
        """The same page of every server that answers."""
        return [page for page in await asyncio.gather(*(self.page(each, path) for each in self.servers)) if page]

    async def meta_leader(self) -> Server | None:
        """Who decides where streams live, as most of the servers say."""
        return self._named([page.get("meta_cluster", {}) for page in await self.pages("/jsz")])

    async def leader_of(self, stream: str) -> Server | None:
        """Who takes a stream's messages, as most of the servers say; that may be one that was just lost."""
        return self._named(
            [
                found.get("cluster") or {}
                for page in await self.pages("/jsz?accounts=1&streams=1")
                for account in page.get("account_details", ())
                for found in account.get("stream_detail", ())
                if found["name"] == stream
            ]
        )

    def _named(self, clusters: Sequence[dict[str, Any]]) -> Server | None:
        names = [cluster["leader"] for cluster in clusters if cluster.get("leader")]
        most = max(set(names), key=names.count, default=None)
        return next((server for server in self.servers if server.name == most), None)

    async def until_whole(self, timeout_seconds: float = 120) -> None:
        """Return when every server has all that the others have."""
        await eventually(self._is_whole, timeout_seconds, what="every server has caught up")

    async def _is_whole(self) -> bool:
        if not all([await self.page(server, "/healthz") for server in self.servers]):
            return False
        with suppress(NatsError, JetStreamError, OSError, TimeoutError):
            client = await self.connect()
            try:
                bus = client.jetstream(timeout=2)
                infos: list[Any] = [await bus.stream_info(stream.name) for stream in STREAMS]
                infos += [await bus.consumer_info(each.stream, each.name) for each in CONSUMERS]
            finally:
                await client.close()
            return all(self._has_all(info.cluster) for info in infos)
        return False

    def _has_all(self, cluster: Any) -> bool:
        others = cluster.replicas or []
        return bool(cluster.leader) and len(others) == len(self.servers) - 1 and all(peer.current for peer in others)


@asynccontextmanager
async def nats_cluster(size: int = 3) -> AsyncIterator[NatsCluster]:
    """A running cluster with the platform's topology."""
    async with servers.scratch_dir() as folder:
        cluster = NatsCluster(folder, size)
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.stop()
