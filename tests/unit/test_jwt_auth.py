from datetime import UTC, datetime, timedelta

import jwt
import pytest

from aragora.billing import revocation
from aragora.billing.jwt_auth import (
    JWTConfig,
    JWTConfigError,
    TokenBlacklist,
    create_access_token,
    create_refresh_token,
    create_token_pair,
    validate_access_token,
    validate_refresh_token,
)

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    for variable in ("ARAGORA_JWT_EXPIRY_HOURS", "ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", "ARAGORA_JWT_ALGORITHM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ARAGORA_JWT_SECRET", SECRET)
    monkeypatch.setattr(revocation, "_INSTANCE", TokenBlacklist())


def read(token):
    payload = validate_access_token(token)
    assert payload is not None
    return payload


def claims_of(token):
    return jwt.decode(token, SECRET, algorithms=["HS256"], audience="aragora")


def test_a_token_says_who_it_is_for():
    payload = read(create_access_token(user_id="user_123", email="user@example.com", org_id="org_456", role="admin"))
    assert (payload.user_id, payload.email, payload.org_id, payload.role, payload.token_type) == (
        "user_123", "user@example.com", "org_456", "admin", "access",
    )  # fmt: skip
    assert (payload.session_id, payload.operator, payload.is_expired) == (None, False, False)
    assert payload.exp == int(payload.iat) + 24 * 3600


def test_session_operator_and_id_are_said_only_if_given():
    token = create_access_token("u", "e", session_id="s", operator=True, token_id="t")
    payload = read(token)
    assert (payload.session_id, payload.operator, payload.jti) == ("s", True, "t")
    plain = claims_of(create_access_token("u", "e"))
    assert {"sid", "operator"}.isdisjoint(plain)
    assert jwt.get_unverified_header(token)["kid"]


def test_every_token_has_its_own_id():
    assert len({read(create_access_token("u", "e")).jti for _ in range(20)}) == 20


def test_a_pair_is_issued_at_one_moment_and_may_name_its_refresh_token():
    pair = create_token_pair("u", "e", session_id="s", operator=True, refresh_token_id="family-3")
    refresh = validate_refresh_token(pair.refresh_token)
    assert refresh is not None
    assert (refresh.jti, refresh.session_id, refresh.operator, refresh.iat) == (
        "family-3", "s", True, read(pair.access_token).iat,
    )  # fmt: skip
    assert read(pair.access_token).jti != "family-3"
    assert (pair.expires_in, pair.token_type) == (86400, "bearer")


def test_neither_a_pair_nor_a_payload_shows_itself_in_a_log():
    pair = create_token_pair("u", "ann@example.com")
    assert "eyJ" not in repr(pair)
    assert "ann@example.com" not in repr(read(pair.access_token))


def test_the_moment_of_issue_keeps_its_fraction():
    moment = datetime.now(UTC).replace(microsecond=123_456)
    payload = read(create_access_token("u", "e", issued_at=moment))
    assert payload.iat == moment.timestamp()


def test_lifetimes_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("ARAGORA_JWT_EXPIRY_HOURS", "2")
    monkeypatch.setenv("ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", "7")
    pair = create_token_pair("u", "e")
    assert pair.expires_in == 7200
    refresh = claims_of(pair.refresh_token)
    assert refresh["exp"] - int(refresh["iat"]) == 7 * 86400


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ARAGORA_JWT_EXPIRY_HOURS", "0"),
        ("ARAGORA_JWT_EXPIRY_HOURS", "-1"),
        ("ARAGORA_JWT_EXPIRY_HOURS", "1.5"),
        ("ARAGORA_JWT_EXPIRY_HOURS", "many"),
        ("ARAGORA_JWT_EXPIRY_HOURS", "²"),
        ("ARAGORA_JWT_EXPIRY_HOURS", "721"),
        ("ARAGORA_JWT_EXPIRY_HOURS", "9" * 5000),
        ("ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", "366"),
    ],
    ids=lambda text: text[:20],
)
def test_a_lifetime_must_be_a_whole_number_in_bounds(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(JWTConfigError, match=f"{variable} .*whole number from 1 to"):
        create_token_pair("u", "e")
    with pytest.raises(JWTConfigError, match=variable):
        JWTConfig.from_environment()


def test_each_kind_of_token_is_good_for_its_own_use_only():
    pair = create_token_pair("u", "e")
    assert validate_access_token(pair.refresh_token) is None
    assert validate_refresh_token(pair.access_token) is None
    assert validate_refresh_token(pair.refresh_token)
    assert validate_access_token(create_refresh_token("u", "e")) is None


def test_a_token_that_was_good_expires_all_the_same(monkeypatch):
    token = create_access_token("u", "e")
    payload = read(token)
    monkeypatch.setattr("aragora.billing.tokens.time.time", lambda: payload.exp - 0.001)
    assert validate_access_token(token)
    monkeypatch.setattr("aragora.billing.tokens.time.time", lambda: payload.exp)
    assert validate_access_token(token) is None


def test_a_token_that_was_good_is_refused_once_it_is_revoked():
    token, other = create_access_token("u", "e"), create_access_token("u", "e")
    TokenBlacklist.get_instance().revoke(read(token).jti)
    assert validate_access_token(token) is None
    assert validate_access_token(other)


def test_a_token_made_right_after_all_were_revoked_is_good():
    before = create_access_token("u", "e")
    for _ in range(200):
        TokenBlacklist.get_instance().revoke_all_for_user("u")
        assert validate_access_token(create_access_token("u", "e"))
    assert validate_access_token(before) is None


def test_many_more_tokens_than_are_remembered_stay_good():
    now = datetime.now(UTC)
    tokens = [create_access_token("u", "e", issued_at=now - timedelta(seconds=n % 60)) for n in range(9_000)]
    assert all(validate_access_token(token) for token in tokens)
    assert all(validate_access_token(token) for token in tokens[::-7])
    assert len(JWTConfig.from_environment().keys.verified) <= 8_192
