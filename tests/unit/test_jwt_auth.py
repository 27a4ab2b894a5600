from datetime import UTC, datetime, timedelta

import jwt
import pytest

from aragora.billing import jwt_auth
from aragora.billing.jwt_auth import (
    JWTConfigError,
    create_access_token,
    create_refresh_token,
    create_token_pair,
    validate_access_token,
)

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    for variable in ("ARAGORA_JWT_EXPIRY_HOURS", "ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ARAGORA_JWT_SECRET", SECRET)


def claims(**changed):
    now = datetime.now(UTC)
    usual = {
        "iss": "aragora",
        "aud": "aragora",
        "sub": "user_123",
        "jti": "j",
        "iat": now,
        "exp": now + timedelta(hours=1),
        "type": "access",
        "email": "user@example.com",
        "org_id": None,
        "role": "member",
    }
    return {
        name: now + value if isinstance(value, timedelta) else value
        for name, value in (usual | changed).items()
        if value != "absent"
    }


def test_the_documented_example_runs():
    token = create_access_token(user_id="user_123", email="user@example.com", org_id="org_456", role="admin")
    pair = create_token_pair(user_id="user_123", email="user@example.com", org_id="org_456")
    assert pair.expires_in == 24 * 3600
    assert validate_access_token(pair.access_token) is not None
    payload = validate_access_token(token)
    assert payload is not None
    assert (payload.user_id, payload.email, payload.org_id, payload.role) == (
        "user_123",
        "user@example.com",
        "org_456",
        "admin",
    )
    assert payload.is_expired is False
    assert payload.exp - payload.iat == 24 * 3600
    assert payload.jti


def test_every_token_has_its_own_id():
    tokens = [create_access_token("u", "e") for _ in range(20)]
    read = [validate_access_token(token) for token in tokens]
    assert len({payload.jti for payload in read if payload}) == 20


def test_lifetimes_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("ARAGORA_JWT_EXPIRY_HOURS", "2")
    monkeypatch.setenv("ARAGORA_REFRESH_TOKEN_EXPIRY_DAYS", "7")
    pair = create_token_pair("u", "e")
    assert pair.expires_in == 7200
    refresh = jwt.decode(pair.refresh_token, SECRET, algorithms=["HS256"], audience="aragora")
    assert refresh["exp"] - refresh["iat"] == 7 * 86400


def test_a_refresh_token_is_no_access_token():
    assert validate_access_token(create_refresh_token("u", "e")) is None


def test_another_secret_is_a_forgery(monkeypatch):
    token = create_access_token("u", "e")
    monkeypatch.setenv("ARAGORA_JWT_SECRET", SECRET[::-1])
    assert validate_access_token(token) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": timedelta(seconds=-1)},
        {"iat": timedelta(hours=1)},
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"iss": "absent"},
        {"aud": "absent"},
        {"exp": "absent"},
        {"jti": "absent"},
        {"sub": "absent"},
        {"type": "absent"},
        {"email": 1},
        {"role": None},
        {"org_id": 7},
    ],
    ids=str,
)
def test_wrong_claims_are_refused(changed):
    assert validate_access_token(jwt.encode(claims(), SECRET, algorithm="HS256")) is not None
    assert validate_access_token(jwt.encode(claims(**changed), SECRET, algorithm="HS256")) is None


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_the_algorithm_is_pinned(algorithm):
    key = SECRET * 2 if algorithm != "none" else None
    assert validate_access_token(jwt.encode(claims(), key, algorithm=algorithm)) is None


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "ara_0123456789abcdef", "é.é.é", "\x00", "." * 100, "e" * 100_000])
def test_what_is_no_token_is_none(text):
    assert validate_access_token(text) is None


@pytest.mark.parametrize("wrong", ["", "short"])
def test_without_a_good_secret_it_says_what_to_do(monkeypatch, wrong):
    monkeypatch.setenv("ARAGORA_JWT_SECRET", wrong)
    for call in (lambda: create_access_token("u", "e"), lambda: validate_access_token("x")):
        with pytest.raises(JWTConfigError, match=r"ARAGORA_JWT_SECRET .*openssl rand"):
            call()


@pytest.mark.parametrize("hours", ["0", "-1", "1.5", "many", "²"])
def test_a_lifetime_must_be_a_positive_whole_number(monkeypatch, hours):
    monkeypatch.setenv("ARAGORA_JWT_EXPIRY_HOURS", hours)
    with pytest.raises(JWTConfigError, match="ARAGORA_JWT_EXPIRY_HOURS"):
        create_access_token("u", "e")


def test_a_revoked_token_is_refused():
    token, other = create_access_token("u", "e"), create_access_token("u", "e")
    payload = validate_access_token(token)
    assert payload
    revoked = payload.jti

    def is_revoked(payload):
        return payload.jti == revoked

    jwt_auth.add_revocation_check(is_revoked)
    try:
        assert validate_access_token(token) is None
        assert validate_access_token(other) is not None
    finally:
        jwt_auth.remove_revocation_check(is_revoked)
    assert validate_access_token(token) is not None
