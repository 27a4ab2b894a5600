"""A connection to the bus for somebody who waits for an answer, not for a service."""

from nats.aio.client import Client


async def connect_once(
    url: str, *, user: str | None = None, password: str | None = None, inbox_prefix: str = "_INBOX.operator"
) -> Client:
    """A client that tries once, does not reconnect and logs nothing: the exception says what is wrong.

    Args:
        url: of a server, or of several, separated by commas.
        user: its name on the bus; None where the URL has it, or the bus asks for none.
        password: the user's.
        inbox_prefix: where answers come back: the account's own.

    Raises:
        nats.errors.Error, OSError, TimeoutError: the bus is not there, or does not let us in.
    """

    async def quietly(_: Exception) -> None:
        return

    client = Client()
    try:
        await client.connect(
            url.split(","),
            user=user,
            password=password,
            error_cb=quietly,
            allow_reconnect=False,
            connect_timeout=5,
            max_reconnect_attempts=1,  # of each server: with 0 it would try for ever
            reconnect_time_wait=0,
            inbox_prefix=inbox_prefix.encode(),
        )
    except BaseException:
        await client.close()  # a refused client leaves its socket open
        raise
    return client
