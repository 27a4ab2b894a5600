"""Asking the platform whose an API key is, for programs that are called with one."""

import json
import logging
import os
import time
from datetime import datetime
from functools import cache
from typing import Any

import httpx

from aragora.billing.api_keys import VerifiedKey, digest_of, has_key_form
from aragora.billing.client import DEFAULT_URL
from aragora.billing.expiring import Expiring

REMEMBERED_SECONDS = 30
"""So long an accepted key is not asked about again; a revoked one works here for as long at most."""
_TIMEOUT_SECONDS = 5
_log = logging.getLogger("aragora.billing")

_accepted: Expiring[VerifiedKey] = Expiring(1_000)


def ask_platform(key: str) -> VerifiedKey | None:
    """What the platform at `ARAGORA_URL` knows of a key; None if it refuses it, or does not answer within 5 seconds.

    An accepted key is remembered for 30 seconds. This waits for the network: in `asyncio`, use `asyncio.to_thread`.
    """
    if not has_key_form(key):
        return None
    url = (os.environ.get("ARAGORA_URL") or DEFAULT_URL).rstrip("/") + "/api/auth/verify"
    now = time.time()
    name = f"{digest_of(key)} {url}"
    known = _accepted.get(name, now)
    if known is not None:
        return known
    try:
        answer = _http(os.getpid()).get(url, headers={"Authorization": f"Bearer {key}"})
    except (httpx.HTTPError, httpx.InvalidURL) as trouble:
        _log.warning("an API key could not be verified: no answer (%s); is ARAGORA_URL right?", type(trouble).__name__)
        return None
    found = _read(answer) if answer.is_success else None
    if found is None:
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            _log.warning("an API key could not be verified: the platform answered %d", answer.status_code)
        return None
    until = now + REMEMBERED_SECONDS
    if found.expires_at is not None:
        until = min(until, found.expires_at.timestamp())
    if until <= now:
        return None
    _accepted.put(name, found, until, now)
    return found


@cache
def _http(_process_id: int) -> httpx.Client:
    """Connections that are kept open; a forked process has its own. Redirects are not followed: a key stays here."""
    return httpx.Client(timeout=_TIMEOUT_SECONDS)


def _read(answer: httpx.Response) -> VerifiedKey | None:
    """The key that a good answer describes, or None if it is not about a key, or not understood."""
    try:
        told: Any = json.loads(answer.content)["data"]
        names = (told["user_id"], told["role"], *told["scopes"])
        expires_at = None if told.get("expires_at") is None else datetime.fromisoformat(told["expires_at"])
        if told["token_type"] != "api_key":  # noqa: S105 -- a kind, not a secret
            return None
        if not all(isinstance(name, str) for name in names):
            return None
        if not isinstance(told["org_id"], str | None) or (expires_at is not None and expires_at.tzinfo is None):
            return None
        return VerifiedKey(told["user_id"], told["org_id"], told["role"], frozenset(told["scopes"]), expires_at)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
