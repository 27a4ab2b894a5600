"""The whole platform on one machine: its children, in their order, with their settings."""

import asyncio
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from aragora_nats.configuration import STREAM_MAX_BYTES
from aragora_nats.topology import apply_topology
from standalone import credentials, datadir, machine, stripe_settings
from standalone.child import until
from standalone.credentials import Credentials
from standalone.datadir import Running
from standalone.nats import EmbeddedNats
from standalone.postgres import EmbeddedPostgres
from standalone.problems import PortTaken, StartFailed
from standalone.service import PythonService
from standalone.service_settings import environment, mailbox_url
from standalone.supervisor import Supervisor

POSTGRES_PORT = 15432
NATS_PORT = 14222
MONITORING_PORT = 18222
STRIPE_PORT = 12111
SMTP_PORT = 11025
MAILBOX_PORT = 18025
LEFTOVER_SECONDS = 10.0
"""How long the gateway of a killed `aragora up` may take to let go of the port."""

_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Whose certificates are believed where `http` is spoken. Without it every question reads those of all authorities."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `aragora up` was told. Ports that are None are the usual ones, or free ones where those are taken."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int | None = None
    postgres_port: int | None = None
    nats_port: int | None = None
    simulate_stripe: bool = False
    webhook_networks: str = ""
    """Networks that webhook endpoints may be in although they are not public."""

    @property
    def worker_count(self) -> int:
        """Metering workers: as told, else half the cores, from 2 to 8; the other half is Postgres' and the bus'."""
        return self.workers if self.workers is not None else max(2, min(8, machine.cores() // 2))


class Platform:
    """Everything that `aragora up` runs. `say` gets a line for every step and every trouble."""

    def __init__(self, options: Options, secrets: Credentials, say: Say) -> None:
        self.options = options
        self.credentials = secrets
        self.opened_folders: list[Path] = []
        self._say = say
        self._supervisor = Supervisor(say, self._remember)
        self._running: Running | None = None

    async def start(self) -> Running:
        """Start all. Raises a `StandaloneError` that says what is wrong; then `stop` stops what did start."""
        if self.options.simulate_stripe:
            stripe_settings.demand_unset()
        await self._claim_port()
        running, postgres, nats = await self._start_servers()
        self.opened_folders = postgres.opened_folders
        gateway = self._gateway(running)
        await gateway.launch()  # it is the slowest to begin, and needs nothing for that
        try:
            await self._prepare(running, postgres, nats)
        except BaseException:
            await gateway.stop()
            raise
        running = replace(running, is_prepared=True)
        datadir.remember(self.options.data_dir, running)
        await self._supervisor.start(gateway, *self._workers(running))
        self._running = running
        self._remember()
        return running

    async def _prepare(self, running: Running, postgres: EmbeddedPostgres, nats: EmbeddedNats) -> None:
        databases = [self.credentials.database_of(service) for service in credentials.SERVICES]
        await postgres.create_databases(databases)
        outcomes = await asyncio.gather(
            *(self._migrate(running, service) for service in credentials.SERVICES),
            self._supervisor.start(*self._stand_in(running)),
            return_exceptions=True,
        )
        for failed in outcomes:
            if failed is not None:
                raise failed
        for line in await apply_streams(nats):
            self._say(line)

    async def _migrate(self, running: Running, service: str) -> None:
        settings = environment(self.credentials, running, service)
        migration = PythonService(f"{service}-migrate", self.options.data_dir, [service, "migrate"], settings)
        self._say(f"{service}: {await migration.run_once()}")

    async def _start_servers(self) -> tuple[Running, EmbeddedPostgres, EmbeddedNats]:
        """Two that start in the same instant may find the same ports free: who comes second looks for others."""
        data_dir = self.options.data_dir
        for last_try in (False, False, True):
            running = self._choose_ports()
            datadir.remember(data_dir, running)
            ports = [running.postgres_port, running.nats_port, running.monitoring_port]
            ports += [port for port in (running.smtp_port, running.mailbox_port) if port is not None]
            postgres = EmbeddedPostgres(data_dir, self.credentials.postgres_password, running.postgres_port)
            nats = EmbeddedNats(data_dir, self.credentials.bus, running.nats_port, monitoring_port=ports[2])
            try:
                await self._supervisor.start(postgres, nats, *self._mailbox(running))
            except StartFailed:
                await self._supervisor.stop()
                if last_try or all(map(machine.port_is_free, ports)):
                    raise
            else:
                break
        return running, postgres, nats

    def _choose_ports(self) -> Running:
        options, last = self.options, datadir.last_run(self.options.data_dir)
        stripe_port = machine.free_port((last and last.stripe_port) or STRIPE_PORT)
        is_mailed = bool(os.environ.get("ARAGORA_SMTP_HOST"))
        return Running(
            pid=os.getpid(),
            host=options.host,
            port=options.port,
            postgres_port=_port(
                options.postgres_port, last.postgres_port if last else POSTGRES_PORT, "--postgres-port"
            ),
            nats_port=_port(options.nats_port, last.nats_port if last else NATS_PORT, "--nats-port"),
            monitoring_port=machine.free_port(last.monitoring_port if last else MONITORING_PORT),
            stripe=stripe_settings.of_stand_in(stripe_port) if options.simulate_stripe else {},
            smtp_port=None if is_mailed else machine.free_port((last and last.smtp_port) or SMTP_PORT),
            mailbox_port=None if is_mailed else machine.free_port((last and last.mailbox_port) or MAILBOX_PORT),
            smtp_ca_file="" if is_mailed else str(options.data_dir / "mailbox.crt"),
            webhook_networks=options.webhook_networks,
        )

    def _remember(self) -> None:
        if self._running is not None:
            self._running = replace(self._running, services=self._supervisor.pids())
            datadir.remember(self.options.data_dir, self._running)

    def _stand_in(self, running: Running) -> list[PythonService]:
        """Stripe's, if there is one. It reads from the data directory what billing is told of it."""

        async def ready() -> bool:
            return await answers(running.stripe_url)

        here = {"ARAGORA_DATA_DIR": str(self.options.data_dir)}
        service = PythonService("stripe-simulator", self.options.data_dir, ["standalone.stripe_stand_in"], here, ready)
        return [service] if running.stripe else []

    def _mailbox(self, running: Running) -> list[PythonService]:
        """The local one, unless the operator has named a mail server. Somebody else's on its ports has another key."""
        url = mailbox_url(self.credentials, running)

        async def ready() -> bool:
            return await answers(url)

        here = {"ARAGORA_DATA_DIR": str(self.options.data_dir)}
        return [PythonService("mailbox", self.options.data_dir, ["standalone.mailbox"], here, ready)] if url else []

    def _gateway(self, running: Running) -> PythonService:
        """It is of all services: it reads from the data directory what each of them is told."""

        async def ready() -> bool:
            return await answers(f"{running.url}/readyz")

        here = {"ARAGORA_DATA_DIR": str(self.options.data_dir)}
        return PythonService("gateway", self.options.data_dir, ["standalone.gateway"], here, ready)

    def _workers(self, running: Running) -> list[PythonService]:
        data_dir = self.options.data_dir
        here = {"ARAGORA_DATA_DIR": str(data_dir)}

        def worker(name: str, service: str) -> PythonService:
            settings = environment(self.credentials, running, service)
            return PythonService(name, data_dir, [service, "worker"], settings | here)

        return [
            *(worker(f"metering-worker-{number}", "metering") for number in range(1, self.options.worker_count + 1)),
            worker("auth-worker", "auth"),
            worker("billing-worker", "billing"),
            worker("notifier-worker", "notifier"),
        ]

    async def _claim_port(self) -> None:
        port, host = self.options.port, self.options.host
        if not machine.port_is_free(port, host) and self._is_leftover(machine.listener_on(port)):
            with suppress(TimeoutError):
                await asyncio.wait_for(until(lambda: machine.port_is_free(port, host)), LEFTOVER_SECONDS)
        if not machine.port_is_free(port, host):
            raise PortTaken(_taken(port, "--port"))

    def _is_leftover(self, process: psutil.Process | None) -> bool:
        """Whether it is the gateway of an `aragora up` on this data directory that was killed a moment ago."""
        try:
            return process is not None and process.environ().get("ARAGORA_DATA_DIR") == str(self.options.data_dir)
        except psutil.Error:
            return False

    async def stop(self) -> None:
        """Stop all, in reverse order."""
        await self._supervisor.stop()

    def hurry(self) -> None:
        """Stop at once what `stop` is waiting for."""
        self._supervisor.hurry()


def _taken(port: int, option: str) -> str:
    by = machine.listener_on(port)
    who = f"{by.name()} (pid {by.pid})" if by else "another program"
    return f"Port {port} is taken by {who}. Stop that, or choose another port with {option}."


def _port(wanted: int | None, preferred: int, option: str) -> int:
    if wanted is None:
        return machine.free_port(preferred)
    if not machine.port_is_free(wanted):
        raise PortTaken(_taken(wanted, option))
    return wanted


async def answers(url: str) -> bool:
    """Whether the URL, which is of this machine, answers 200 now."""
    async with httpx.AsyncClient(timeout=3, verify=_NOBODY) as client:
        try:
            return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


async def apply_streams(nats: EmbeddedNats) -> list[str]:
    """Apply the topology to the embedded server. Returns a line for each stream and consumer."""
    client = await nats.connect()
    try:
        return await apply_topology(client.jetstream(), replicas=1, max_bytes=STREAM_MAX_BYTES)
    finally:
        await client.close()


async def run(platform: Platform, say: Say, while_up: Callable[[Running, asyncio.Event], Awaitable[None]]) -> None:
    """Start the platform, do `while_up`, and stop the platform, whatever happens.

    Ctrl-C, SIGTERM and SIGHUP set the event that `while_up` gets, or give up the start; a second one hurries the stop.
    """
    machine.allow_many_connections()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            say("Hurrying.")
            platform.hurry()
        else:
            say("Stopping; once more to hurry.")
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(platform.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await while_up(starting.result(), stop)
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await platform.stop()
