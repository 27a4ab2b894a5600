"""The notifier's connection to the bus, and its clock: for the API and for the worker."""

from datetime import UTC, datetime
from typing import Any

from faststream.nats import NatsBroker

from aragora.chassis import bus
from aragora.contracts import topology
from notifier.settings import Settings


def now_utc() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def connect_bus(settings: Settings, **policy: Any) -> NatsBroker:
    """A connection that is not yet open. It reconnects for ever."""
    user, password = settings.nats_user, settings.nats_password
    return bus.connect_bus(settings.nats_url, user, password, topology.NOTIFIER, **policy)
