"""Everything secret or personal that went over HTTP, gathered as it goes, and looked for where it must not be."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg
import httpx

SECRET_FIELDS = {
    "email", "password", "current_password", "new_password", "code", "secret", "recovery_codes", "otpauth_url",
    "token", "access_token", "refresh_token", "invitation", "key",
}  # fmt: skip
MIN_CHARACTERS = 8
"""What is shorter is looked for in quotes only: six digits may be anything."""


class SecretsUsed:
    """By text, what it is. `watch` a client, and `add` what it does not see."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def watch(self, client: httpx.AsyncClient) -> None:
        """Gather from every request of this client, and every answer."""
        client.event_hooks["response"].append(self._read)

    def add(self, what: str, *texts: str) -> None:
        """One more secret, and what is made of it."""
        for text in texts:
            self.found.setdefault(text, what)
            if text.count(".") == 2 and text.startswith("eyJ"):
                self.found.setdefault(text.rpartition(".")[2], f"the signature of {what}")
            if text.startswith(("ara_", "svc_")) and len(text) > 20:
                self.found.setdefault(hashlib.sha256(text.encode()).hexdigest(), f"the hash of {what}")

    async def _read(self, answer: httpx.Response) -> None:
        await answer.aread()
        scheme, _, credential = answer.request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and credential:
            self.add("a credential", credential)
        for content in (answer.request.content, answer.content):
            try:
                self._gather(json.loads(content))
            except ValueError:
                continue  # an answer for people, or what was no JSON on purpose

    def _gather(self, content: Any) -> None:
        if isinstance(content, list):
            for each in content:
                self._gather(each)
        elif isinstance(content, dict):
            for name, value in content.items():
                if name in SECRET_FIELDS:
                    texts = value if isinstance(value, list) else [value]
                    self.add(name, *(text for text in texts if isinstance(text, str) and text))
                else:
                    self._gather(value)

    def leaks_in(self, place: str, text: str) -> list[str]:
        """What of all this is in a text: where, what it is, and its surroundings."""
        folded = text.casefold()
        leaks = []
        for secret, what in self.found.items():
            for form in (secret,) if len(secret) >= MIN_CHARACTERS else (f'"{secret}"', f"'{secret}'"):
                at = folded.find(form.casefold())
                if at >= 0:
                    leaks.append(f"{place} holds {what} ({secret[:12]}…): …{text[max(0, at - 160) : at + 60]}…")
        return leaks


async def texts_of(url: str, queries: Iterable[str]) -> list[str]:
    """The rows of some queries, each as one text."""
    connection = await asyncpg.connect(url)
    try:
        return [str(row[0]) for query in queries for row in await connection.fetch(query)]
    finally:
        await connection.close()


def logs_of(folder: Path) -> dict[str, str]:
    """Every log file below a folder."""
    return {path.name: path.read_text(errors="replace") for path in sorted(folder.rglob("*.log"))}
