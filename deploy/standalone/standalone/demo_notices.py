"""What the story's owner is told: letters in the mailbox of this machine, and messages to a webhook endpoint."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from standalone.demo_receiver import Receiver

PATIENCE_SECONDS = 20
POLL_SECONDS = 0.1


async def seconds_until(is_so: Callable[[], Awaitable[bool]], since: float) -> float:
    """How long it took since that moment of the monotonic clock. Raises `TimeoutError`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_so():  # noqa: ASYNC110  other processes give no signal
            await asyncio.sleep(POLL_SECONDS)
    return time.monotonic() - since


@dataclass
class Notices:
    """Where the owner looks. Without a mailbox (letters go to a real mail server) no letter is looked for."""

    browser: httpx.AsyncClient
    mailbox_url: str
    receiver: Receiver
    email: str = ""

    async def letter(self, words: str) -> str | None:
        """The text of the newest letter to the owner with these words in its subject, if there is one."""
        answer = await self.browser.get(f"{self.mailbox_url}letters.json", params={"to": self.email})
        return next((one["text"] for one in answer.json() if words in one["subject"]), None)

    async def secret_in(self, words: str) -> str:
        """What the link of a letter holds; waits for the letter."""
        await seconds_until(lambda: self._has_come(words), time.monotonic())
        found = re.search(r"#token=(\S+)", await self.letter(words) or "")
        return found[1] if found else ""

    async def _has_come(self, words: str) -> bool:
        return await self.letter(words) is not None

    async def of(self, words: str, kind: str, since: float) -> str:
        """Waits until the owner and their endpoint are told of something, and says how long after `since` they were."""

        async def has_received() -> bool:
            return self.receiver.has(kind)

        said, waiting = [], list[Awaitable[float]]()
        if self.mailbox_url:
            said.append("Fern had a letter after {:.1f} s")
            waiting.append(seconds_until(lambda: self._has_come(words), since))
        if self.receiver.secret:
            said.append("the bakery's own program after {:.1f} s, signed")
            waiting.append(seconds_until(has_received, since))
        seconds = await asyncio.gather(*waiting)
        told = ", ".join(sentence.format(one) for sentence, one in zip(said, seconds, strict=True))
        return f" {told[0].upper()}{told[1:]}." if told else ""
