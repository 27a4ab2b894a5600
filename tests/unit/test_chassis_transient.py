import asyncpg
import nats.errors
import pytest

from aragora.chassis.transient import is_transient


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        nats.errors.TimeoutError(),
        nats.errors.ConnectionClosedError(),
        nats.errors.NoServersError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.AdminShutdownError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.DeadlockDetectedError(),
        asyncpg.SerializationError(),
        asyncpg.LockNotAvailableError(),
        asyncpg.DiskFullError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.InterfaceError("connection is closed"),
    ],
    ids=repr,
)
def test_what_passes_by_itself(error):
    assert is_transient(error)
    outer = RuntimeError("while recording")
    outer.__cause__ = error
    assert is_transient(outer)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        KeyError(),
        asyncpg.UniqueViolationError(),
        asyncpg.UndefinedTableError(),
        asyncpg.CheckViolationError(),
        asyncpg.DataError("invalid input for query argument $1"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        nats.errors.MaxPayloadError(),
        FileNotFoundError(),
        PermissionError(),
    ],
    ids=repr,
)
def test_what_does_not(error):
    assert not is_transient(error)
