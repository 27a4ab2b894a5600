from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.billing import revocation
from aragora.billing.jwt_auth import TokenBlacklist, TokenPayload, is_token_revoked, revoke_token
from aragora.contracts.events import ApiKeyRevoked, TokenRevoked, UserTokensRevoked

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def lifetimes(monkeypatch):
    monkeypatch.delenv("ARAGORA_JWT_EXPIRY_HOURS", raising=False)
    monkeypatch.delenv("ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", raising=False)
    monkeypatch.setattr(revocation, "_INSTANCE", TokenBlacklist())


def payload(jti="t", user_id="ann", org_id="acme", session_id=None, issued_at=NOW):
    moment = issued_at.timestamp()
    return TokenPayload(user_id, "e", org_id, "member", jti, moment, moment + 3600, "access", session_id)


def token_revoked(**named):
    return TokenRevoked(user_id="ann", expires_at=NOW + HOUR, reason="logout", **named)


def user_revoked(issued_before=NOW, org_id=None):
    return UserTokensRevoked(user_id="ann", org_id=org_id, issued_before=issued_before, reason="password_changed")


def test_a_token_is_refused_by_its_id():
    blacklist = TokenBlacklist()
    blacklist.revoke("t", expires_at=NOW + HOUR, reason="logout")
    assert blacklist.is_revoked(payload("t"))
    assert not blacklist.is_revoked(payload("other"))
    assert (blacklist.is_token_revoked("t"), blacklist.is_token_revoked("other")) == (True, False)


def test_a_session_is_refused_with_all_its_tokens():
    blacklist = TokenBlacklist()
    blacklist.revoke_session("s")
    assert blacklist.is_revoked(payload("t", session_id="s"))
    assert not blacklist.is_revoked(payload("t", session_id="other"))
    assert not blacklist.is_revoked(payload("t", session_id=None))
    assert not blacklist.is_token_revoked("t")


def test_a_person_is_refused_up_to_a_moment():
    blacklist = TokenBlacklist()
    blacklist.revoke_all_for_user("ann", "password_changed", issued_before=NOW)
    assert blacklist.is_revoked(payload(issued_at=NOW - timedelta(microseconds=1)))
    assert not blacklist.is_revoked(payload(issued_at=NOW))
    assert not blacklist.is_revoked(payload(user_id="bob", issued_at=NOW - HOUR))


def test_a_person_is_refused_in_one_organization():
    blacklist = TokenBlacklist()
    blacklist.revoke_all_for_user("ann", "removed", org_id="acme", issued_before=NOW)
    earlier = NOW - HOUR
    assert blacklist.is_revoked(payload(org_id="acme", issued_at=earlier))
    assert not blacklist.is_revoked(payload(org_id="other", issued_at=earlier))
    assert not blacklist.is_revoked(payload(org_id=None, issued_at=earlier))


def test_the_module_asks_the_one_instance():
    assert not is_token_revoked("abc123")
    revoke_token("abc123", "user_logout", expires_at=NOW + HOUR)
    assert is_token_revoked(token_jti="abc123")
    assert TokenBlacklist.get_instance().is_revoked(payload("abc123"))


def test_what_others_revoked_is_heard():
    blacklist = TokenBlacklist()
    blacklist.hear(token_revoked(token_jti="t"))
    blacklist.hear(token_revoked(session_id="s"))
    blacklist.hear(user_revoked(org_id="acme"))
    blacklist.hear(ApiKeyRevoked(key_id="k", reason="lost"))
    assert blacklist.is_revoked(payload("t"))
    assert blacklist.is_revoked(payload("x", session_id="s"))
    assert blacklist.is_revoked(payload("x", issued_at=NOW - HOUR))
    assert not blacklist.is_revoked(payload("x", org_id="other", issued_at=NOW - HOUR))


EVENTS = (
    token_revoked(token_jti="t"),
    token_revoked(session_id="s"),
    user_revoked(NOW - HOUR),
    user_revoked(NOW),
    user_revoked(NOW + HOUR, org_id="acme"),
)
ASKED = tuple(
    payload(jti, session_id=session_id, org_id=org_id, issued_at=NOW + after)
    for jti in ("t", "x")
    for session_id in ("s", None)
    for org_id in ("acme", "other")
    for after in (-2 * HOUR, -HOUR / 2, timedelta(0), HOUR / 2, 2 * HOUR)
)


def answers(events):
    blacklist = TokenBlacklist()
    for event in events:
        blacklist.hear(event)
    return [blacklist.is_revoked(asked) for asked in ASKED], blacklist.cleanup(NOW + timedelta(days=31))


def test_every_order_comes_to_the_same():
    expected = answers(EVENTS)
    assert any(expected[0])
    assert not all(expected[0])
    assert all(answers(order) == expected for order in permutations(EVENTS))


@given(st.lists(st.sampled_from(EVENTS)))
def test_hearing_twice_comes_to_the_same(events):
    assert answers(events + events[::-1]) == answers(events)


def test_what_concerns_expired_tokens_only_is_forgotten():
    blacklist = TokenBlacklist()
    blacklist.revoke("short", expires_at=NOW + HOUR)
    blacklist.revoke("unknown")  # as long as the longest token
    blacklist.revoke_session("s", expires_at=NOW + 2 * HOUR)
    blacklist.revoke_all_for_user("ann", issued_before=NOW)
    assert blacklist.cleanup(NOW) == 0
    assert blacklist.cleanup(NOW + HOUR) == 1
    assert not blacklist.is_token_revoked("short")
    assert blacklist.cleanup(NOW + timedelta(days=29)) == 1
    assert blacklist.is_token_revoked("unknown")
    assert blacklist.is_revoked(payload(issued_at=NOW - HOUR))
    assert blacklist.cleanup(NOW + timedelta(days=31)) == 2
    assert blacklist.cleanup() == 0


def test_a_revocation_is_not_shortened_by_a_later_one():
    blacklist = TokenBlacklist()
    blacklist.revoke("t", expires_at=NOW + 2 * HOUR)
    blacklist.revoke("t", expires_at=NOW + HOUR)
    assert blacklist.cleanup(NOW + HOUR) == 0
    blacklist.revoke_all_for_user("ann", issued_before=NOW)
    blacklist.revoke_all_for_user("ann", issued_before=NOW - HOUR)
    assert blacklist.is_revoked(payload(issued_at=NOW - HOUR / 2))


def test_expired_entries_go_by_themselves():
    blacklist = TokenBlacklist()
    for number in range(100):
        blacklist.revoke(str(number), expires_at=NOW - HOUR)
    blacklist._next_cleanup = NOW
    blacklist.revoke("t", expires_at=NOW + HOUR)
    assert list(blacklist._tokens) == ["t"]
    assert blacklist._next_cleanup > NOW


def test_it_may_be_written_and_asked_from_many_threads():
    blacklist = TokenBlacklist()

    def work(worker):
        for number in range(300):
            jti = f"{worker}-{number}"
            blacklist.revoke(jti, expires_at=NOW + (HOUR if number % 2 else -HOUR))
            blacklist.revoke_all_for_user(f"user-{number}", issued_before=NOW + timedelta(seconds=worker))
            blacklist.is_revoked(payload(jti))
            if number % 50 == 0:
                blacklist.cleanup()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    blacklist.cleanup()
    for worker in range(8):
        assert [n for n in range(300) if blacklist.is_token_revoked(f"{worker}-{n}")] == list(range(1, 300, 2))
    latest = NOW + timedelta(seconds=7)
    for number in range(300):
        assert not blacklist.is_revoked(payload("x", f"user-{number}", issued_at=latest))
        assert blacklist.is_revoked(payload("x", f"user-{number}", issued_at=latest - timedelta(microseconds=1)))
