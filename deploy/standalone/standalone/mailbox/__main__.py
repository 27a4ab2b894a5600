"""The mailbox of a data directory, as a part of the platform: `python -m standalone.mailbox`."""

import asyncio
import sys
from pathlib import Path

import uvicorn

from standalone import credentials, datadir
from standalone.credentials import Credentials
from standalone.datadir import Running
from standalone.mailbox.certificate import server_context
from standalone.mailbox.letters import FILE_NAME, Letters
from standalone.mailbox.pages import create_app
from standalone.mailbox.smtp import listen
from standalone.problems import NotRunning, StandaloneError


async def _serve(data_dir: Path, running: Running, secrets: Credentials) -> None:
    if running.smtp_port is None or running.mailbox_port is None:
        raise NotRunning(
            f"{data_dir} says nothing of a mailbox: `aragora up` starts it unless a mail server is set up."
        )
    letters = Letters(data_dir / FILE_NAME)
    postman = await listen(letters, secrets.mailbox_key, running.smtp_port, server_context(Path(running.smtp_ca_file)))
    config = uvicorn.Config(
        create_app(letters, secrets.mailbox_key), host="127.0.0.1", port=running.mailbox_port, lifespan="off",
        log_level="warning", access_log=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    await uvicorn.Server(config).serve()
    postman.close()
    letters.close()


def main() -> None:
    """Serve until SIGTERM."""
    data_dir = datadir.default_data_dir()
    try:
        running = datadir.last_run(data_dir)
        if running is None:
            raise NotRunning(f"{data_dir} says nothing of servers: `aragora up` starts them, and this.")
        asyncio.run(_serve(data_dir, running, credentials.read(data_dir)))
    except StandaloneError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
