"""Tokens that count for nothing any more, although they have not expired."""

import logging
from datetime import UTC, datetime, timedelta
from threading import Lock

from aragora.billing.token_payload import TokenPayload
from aragora.billing.token_settings import longest_lifetime
from aragora.contracts.envelope import DomainEvent
from aragora.contracts.events import TokenRevoked, UserTokensRevoked

_CLEANUP_EVERY = timedelta(minutes=5)
_log = logging.getLogger("aragora.billing")


class TokenBlacklist:
    """What has been revoked, as far as this process knows.

    It is this process' own, in memory: revoking here reaches no other process and does not survive the end of this one.
    The platform's services feed theirs from the bus with `hear`; to revoke everywhere, ask `POST /api/auth/revoke`.

    An entry is held until the last token that it concerns has expired; `cleanup` then removes it, and runs by itself
    every five minutes in which something is revoked. Safe from any thread; asking takes no lock.
    """

    def __init__(self) -> None:
        self._writing = Lock()
        self._tokens: dict[str, datetime] = {}
        self._sessions: dict[str, datetime] = {}
        # Seconds since 1970, to be compared with `iat`; (person, None) is about all of a person's tokens.
        self._issued_before: dict[tuple[str, str | None], float] = {}
        self._next_cleanup = datetime.now(UTC) + _CLEANUP_EVERY

    @staticmethod
    def get_instance() -> "TokenBlacklist":
        """The one that `validate_access_token` asks."""
        return _INSTANCE

    def revoke(self, token_jti: str, *, expires_at: datetime | None = None, reason: str = "") -> None:
        """Refuse a token from now on, by its `jti`. `expires_at`: when it expires, if that is known.

        The reason goes to the log, so let it name nobody.
        """
        self._hold(self._tokens, token_jti, expires_at)
        _log.info("token %s is revoked: %s", token_jti, reason or "no reason given")

    def revoke_session(self, session_id: str, *, expires_at: datetime | None = None, reason: str = "") -> None:
        """Refuse every token of a session from now on. `expires_at`: when the last of them does."""
        self._hold(self._sessions, session_id, expires_at)
        _log.info("session %s is revoked: %s", session_id, reason or "no reason given")

    def revoke_all_for_user(
        self, user_id: str, reason: str = "", *, org_id: str | None = None, issued_before: datetime | None = None
    ) -> None:
        """Refuse every token of a person that was issued before a moment: before now, if none is given.

        With `org_id`, only the tokens for that organization. What is issued afterwards is good.
        """
        self._refuse_before((user_id, org_id), issued_before or datetime.now(UTC))
        _log.info("the tokens of user %s are revoked: %s", user_id, reason or "no reason given")

    def is_revoked(self, payload: TokenPayload) -> bool:
        """Is this token refused: itself, its session, or with the others of its owner?"""
        if payload.jti in self._tokens or payload.session_id in self._sessions:
            return True
        moment = self._issued_before.get((payload.user_id, None))
        if moment is not None and payload.iat < moment:
            return True
        moment = self._issued_before.get((payload.user_id, payload.org_id))
        return moment is not None and payload.iat < moment

    def is_token_revoked(self, token_jti: str) -> bool:
        """Was the token with this `jti` itself revoked? Its session and its owner are not asked about."""
        return token_jti in self._tokens

    def hear(self, event: DomainEvent) -> None:
        """Apply what another process revoked. Twice or in another order comes to the same; other events are ignored."""
        if isinstance(event, TokenRevoked):
            if event.token_jti is not None:
                self._hold(self._tokens, event.token_jti, event.expires_at)
            if event.session_id is not None:
                self._hold(self._sessions, event.session_id, event.expires_at)
        elif isinstance(event, UserTokensRevoked):
            self._refuse_before((event.user_id, event.org_id), event.issued_before)

    def cleanup(self, now: datetime | None = None) -> int:
        """Forget what concerns expired tokens only, and say how many entries that were."""
        with self._writing:
            return self._cleanup(now or datetime.now(UTC))

    def _hold(self, entries: dict[str, datetime], name: str, expires_at: datetime | None) -> None:
        now = datetime.now(UTC)
        with self._writing:
            known = entries.get(name)
            until = expires_at or now + longest_lifetime()
            entries[name] = until if known is None else max(known, until)
            self._cleanup_if_due(now)

    def _refuse_before(self, whose: tuple[str, str | None], issued_before: datetime) -> None:
        with self._writing:
            moment = issued_before.timestamp()
            self._issued_before[whose] = max(moment, self._issued_before.get(whose, moment))
            self._cleanup_if_due(datetime.now(UTC))

    def _cleanup_if_due(self, now: datetime) -> None:
        if now >= self._next_cleanup:
            self._cleanup(now)

    def _cleanup(self, now: datetime) -> int:
        self._next_cleanup = now + _CLEANUP_EVERY
        removed = 0
        for entries in (self._tokens, self._sessions):
            expired = [name for name, expires_at in entries.items() if expires_at <= now]
            for name in expired:
                del entries[name]
            removed += len(expired)
        oldest = (now - longest_lifetime()).timestamp()  # a token from before has expired
        over = [whose for whose, moment in self._issued_before.items() if moment <= oldest]
        for whose in over:
            del self._issued_before[whose]
        return removed + len(over)


_INSTANCE = TokenBlacklist()


def revoke_token(token_jti: str, reason: str = "", *, expires_at: datetime | None = None) -> None:
    """Refuse a token in this process from now on, by its `jti`: see `TokenBlacklist`."""
    TokenBlacklist.get_instance().revoke(token_jti, expires_at=expires_at, reason=reason)


def is_token_revoked(token_jti: str) -> bool:
    """Was the token with this `jti` itself revoked, as far as this process knows?"""
    return TokenBlacklist.get_instance().is_token_revoked(token_jti)
