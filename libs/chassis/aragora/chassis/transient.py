"""Which failures pass by themselves: a server that is away, restarting or busy. Everything else is to be counted."""

from typing import Any

import asyncpg
import nats.errors
import nats.js.errors

_PASSING = (
    OSError,  # refused, reset, unreachable, not resolved; TimeoutError too
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # the connection broke in the middle of an operation
    asyncpg.OperatorInterventionError,  # shutdown, crash, not yet started, cancelled
    asyncpg.TransactionRollbackError,  # serialization failure, deadlock
    asyncpg.LockNotAvailableError,
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.ReadOnlySQLTransactionError,  # a failover is under way
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.NoRespondersError,
    nats.errors.NoServersError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,  # the stream has no leader just now
    nats.js.errors.ServerError,
    nats.js.errors.ServiceUnavailableError,
)
_LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may succeed without anybody changing anything. Looks at causes too."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _PASSING) and not isinstance(seen, _LASTING):
            return True
        # asyncpg raises the same type for a connection that is gone and for wrong use of one
        if isinstance(seen, asyncpg.InterfaceError) and "clos" in str(seen):
            return True
        seen = seen.__cause__
    return False


def log_failure(log: Any, event: str, error: Exception, **about: object) -> None:
    """Say that something could not be done: a warning if that passes by itself, else an error with where it happened.

    Args:
        log: the caller's structlog logger.
        event: what could not be done.
        error: why.
        **about: what else the line says.
    """
    if is_transient(error):
        log.warning(event, reason=repr(error), **about)
    else:
        log.error(event, exc_info=error, **about)
