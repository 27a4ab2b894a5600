"""Backup and restore of the streams: one archive for each, and a manifest that says what they hold.

The archives are JetStream's own snapshots: every message with its number, and every consumer with its position. They
are not encrypted, also where the streams on disk are. The manifest is written last: a folder without one is no backup.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from nats.aio.client import Client

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK_BYTES = 256 * 1024
TOLD_EVERY_BYTES = 256 * 1024 * 1024
CHUNK_SECONDS = 30.0
"""How long to wait for the next chunk, or for its acknowledgement."""
RESTORE_SECONDS = 600.0
"""How long a server may take to make a stream of what it was sent."""

Say = Callable[[str], None]


class SnapshotError(Exception):
    """A backup or restore that was not done; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A stream in a backup: its archive in the same folder, and what JetStream said of it as it was made."""

    stream: str
    archive: str
    size_bytes: int
    sha256: str
    messages: int
    consumers: int
    config: Mapping[str, Any]
    state: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.stream}: {self.messages:,} messages, {self.consumers} consumers, {self.size_bytes:,} bytes"


async def back_up(client: Client, folder: Path, say: Say) -> list[Archived]:
    """Write every stream into a new folder. Publishers and consumers go on meanwhile.

    Args:
        client: of a user that may do everything.
        folder: is made, readable by its owner alone; it may exist if it is empty.
        say: gets a line for every stream, and of a large one for every 256 MiB.

    Raises:
        SnapshotError: the folder is not empty, or JetStream broke off.
        nats.errors.Error: the bus is away.
    """
    await asyncio.to_thread(_claim, folder)
    begun_at = datetime.now(UTC)
    archived = []
    for name in await _streams(client):
        archived.append(await _archive(client, name, folder, say))
        say(str(archived[-1]))
    manifest = {
        "format": FORMAT,
        "begun_at": begun_at.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "server": str(client.connected_server_version),
        "streams": [asdict(one) for one in archived],
    }
    with _created(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return archived


def _claim(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SnapshotError(f"{folder} is not empty: give each backup a folder of its own.")
    folder.chmod(0o700)


async def _archive(client: Client, stream: str, folder: Path, say: Say) -> Archived:
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        asked = {"deliver_subject": inbox, "chunk_size": CHUNK_BYTES}
        answer = await _ask(client, f"STREAM.SNAPSHOT.{stream}", asked)
        digest, size_bytes = hashlib.sha256(), 0
        with _created(folder / f"{stream}.snapshot") as file:
            while True:
                try:
                    chunk = await subscription.next_msg(timeout=CHUNK_SECONDS)
                except TimeoutError as error:
                    raise SnapshotError(f"{stream}: JetStream sent no more of it; back up again.") from error
                if not chunk.data:
                    break
                digest.update(chunk.data)
                size_bytes += await asyncio.to_thread(file.write, chunk.data)
                _tell(stream, size_bytes, len(chunk.data), say)
                if chunk.reply:
                    await client.publish(chunk.reply)
        # The last message carries a status; without one, or with 204, all of it has come.
        if (status := (chunk.headers or {}).get("Status", "204")) != "204":
            reason = (chunk.headers or {}).get("Description", "")
            raise SnapshotError(f"{stream}: JetStream broke off ({status} {reason}); back up again.")
    finally:
        await subscription.unsubscribe()
    state = answer["state"]
    return Archived(
        stream, f"{stream}.snapshot", size_bytes, digest.hexdigest(), state["messages"], state["consumer_count"],
        answer["config"], state,
    )  # fmt: skip


async def restore(client: Client, folder: Path, say: Say, *, replicas: int | None = None) -> list[Archived]:
    """Make the streams of a backup again, with their messages and consumers. None of them may exist.

    Args:
        client: of a user that may do everything.
        folder: of the backup.
        say: gets a line for every stream, and of a large one for every 256 MiB.
        replicas: copies of each stream, where the backup comes from a cluster of another size.

    Raises:
        SnapshotError: there is no whole backup there, a stream exists, or JetStream refused; what was restored before
            that stays.
        nats.errors.Error: the bus is away.
    """
    archived = await asyncio.to_thread(_whole, folder)
    if found := sorted({one.stream for one in archived}.intersection(await _streams(client))):
        raise SnapshotError(
            f"{', '.join(found)}: there already. A backup is restored to servers without streams: "
            "start new ones, or delete the streams if what they hold may be lost."
        )
    for one in archived:
        await _restore_stream(client, one, folder, replicas, say)
        say(str(one))
    return archived


async def _restore_stream(client: Client, one: Archived, folder: Path, replicas: int | None, say: Say) -> None:
    config = dict(one.config) | ({} if replicas is None else {"num_replicas": replicas})
    begun = await _ask(client, f"STREAM.RESTORE.{one.stream}", {"config": config, "state": dict(one.state)})
    subject = begun["deliver_subject"]
    with (folder / one.archive).open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            _checked(one.stream, (await client.request(subject, chunk, timeout=CHUNK_SECONDS)).data)
            _tell(one.stream, file.tell(), len(chunk), say)
    # Fewer messages than the manifest says are no damage, which the digest would have shown: one of a queue may have
    # been acknowledged while the archive was made, and what is older than the stream keeps is dropped at once.
    _checked(one.stream, (await client.request(subject, b"", timeout=RESTORE_SECONDS)).data)


def _tell(stream: str, size_bytes: int, added_bytes: int, say: Say) -> None:
    if size_bytes % TOLD_EVERY_BYTES < added_bytes and size_bytes >= TOLD_EVERY_BYTES:
        say(f"{stream}: {size_bytes // 2**20:,} MiB so far")


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file, readable by its owner alone; on disk when the block ends."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _whole(folder: Path) -> list[Archived]:
    """What a backup holds, if all of it is as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise SnapshotError(f"{folder} holds no {MANIFEST}: it is no backup, or one that was broken off.") from error
    if manifest["format"] != FORMAT:
        raise SnapshotError(f"{folder} was written by another version; restore it with that one.")
    archived = [Archived(**one) for one in manifest["streams"]]
    for one in archived:
        with (folder / one.archive).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != one.sha256:
                raise SnapshotError(f"{folder / one.archive} is not what was written: restore another backup.")
    return archived


async def _streams(client: Client) -> list[str]:
    return sorted(info.config.name or "" for info in await client.jetstream().streams_info())


async def _ask(client: Client, verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    reply = await client.request(f"$JS.API.{verb}", json.dumps(asked).encode(), timeout=CHUNK_SECONDS)
    return _checked(verb.rpartition(".")[2], reply.data)


def _checked(stream: str, body: bytes) -> dict[str, Any]:
    """An answer of JetStream's, unless it is an error. The acknowledgement of a chunk is empty."""
    answer: dict[str, Any] = json.loads(body or b"{}")
    if error := answer.get("error"):
        raise SnapshotError(f"{stream}: JetStream refuses: {error.get('description', error)}")
    return answer
