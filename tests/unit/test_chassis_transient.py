import asyncpg
import nats.errors
import pytest
import structlog
from structlog.testing import capture_logs

from aragora.chassis.transient import is_transient, log_failure


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


def test_only_what_does_not_pass_is_an_error():
    passes, lasts = ConnectionResetError("gone"), ValueError("never")
    with capture_logs() as logged:
        for error in (passes, lasts):
            log_failure(structlog.get_logger(), "not_read", error, org_id="org_a")
    assert logged == [
        {"log_level": "warning", "event": "not_read", "reason": "ConnectionResetError('gone')", "org_id": "org_a"},
        {"log_level": "error", "event": "not_read", "exc_info": lasts, "org_id": "org_a"},
    ]
