import json
import logging
from datetime import UTC, datetime, timedelta
from email.message import Message
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.billing import key_verification, revocation
from aragora.billing.api_keys import VerifiedKey, digest_of, has_key_form, new_api_key, prefix_of
from aragora.billing.expiring import Expiring
from aragora.billing.jwt_auth import (
    AuthContext,
    TokenBlacklist,
    create_access_token,
    create_refresh_token,
    extract_user_from_request,
)
from aragora.billing.key_verification import ask_platform

KEY = "ara_" + "k" * 43
GOOD = VerifiedKey("ann", "acme", "admin", frozenset({"usage.write", "usage.read"}))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("ARAGORA_JWT_ALGORITHM", raising=False)
    monkeypatch.setenv("ARAGORA_JWT_SECRET", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("ARAGORA_URL", "https://platform.example/")
    monkeypatch.setattr(revocation, "_INSTANCE", TokenBlacklist())
    monkeypatch.setattr(key_verification, "_accepted", Expiring(1_000))


def context_of(headers, **options):
    return extract_user_from_request(SimpleNamespace(headers=headers), **options)


def message(*headers: tuple[str, str]):
    built = Message()
    for name, value in headers:
        built[name] = value
    return built


@pytest.fixture
def token():
    return create_access_token("ann", "ann@example.com", "acme", "admin")


def test_every_way_of_giving_headers_is_read(token):
    bearer = f"Bearer {token}"
    requests = [
        SimpleNamespace(headers={"Authorization": bearer}),
        SimpleNamespace(headers={"authorization": f"bearer   {token} "}),
        SimpleNamespace(headers=httpx.Headers({"AUTHORIZATION": bearer})),
        SimpleNamespace(headers=message(("Authorization", bearer))),
        SimpleNamespace(headers={"X-API-Key": token, "Authorization": "Basic dTpw"}),
        {"Authorization": bearer},
        {"REQUEST_METHOD": "GET", "wsgi.version": (1, 0), "HTTP_AUTHORIZATION": bearer},
        {"HTTP_X_API_KEY": token},
    ]
    contexts = [extract_user_from_request(request) for request in requests]
    assert contexts == [
        AuthContext(
            authenticated=True,
            user_id="ann",
            email="ann@example.com",
            org_id="acme",
            role="admin",
            token_type="access",
        )
    ] * len(requests)


NOBODY = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer x.y.z"},
    {"Authorization": "Basic dXNlcjpwYXNz"},
    {"Authorization": None},
    {"Authorization": b"Bearer x"},
    {"Cookie": "session=1"},
    {1: 2},
    {"Authorization": "Bearer ara_short"},
    {"Authorization": f"Bearer {KEY}!"},
    {"X-API-Key": "svc_" + "k" * 43},
    {"X-API-Key": "Ara_" + "k" * 43},
]


@pytest.mark.parametrize("headers", NOBODY, ids=str)
def test_without_a_good_credential_nobody_is_authenticated(headers):
    assert context_of(headers, verify_api_key=lambda _: GOOD) == AuthContext()
    assert not AuthContext().is_admin


def test_a_refresh_token_or_a_revoked_one_authenticates_nobody(token):
    assert not context_of({"Authorization": f"Bearer {create_refresh_token('ann', 'e')}"}).authenticated
    TokenBlacklist.get_instance().revoke_all_for_user("ann")
    assert not context_of({"Authorization": f"Bearer {token}"}).authenticated


def test_two_different_credentials_in_one_header_are_none(token):
    other = create_access_token("bob", "bob@example.com")
    assert not context_of(
        message(("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {other}"))
    ).authenticated
    assert context_of(message(("Authorization", f"Bearer {token}"), ("authorization", f"bearer {token}"))).authenticated
    # The header of the standard counts before the other.
    assert context_of({"X-API-Key": token, "Authorization": f"Bearer {other}"}).user_id == "bob"


def test_a_header_that_only_resembles_one_is_none(token):
    for name in ("HTTP_AUTHORIZATION", "Http-Authorization", "X_API_KEY", "Proxy-Authorization"):
        assert not context_of({name: f"Bearer {token}"}).authenticated


@pytest.mark.parametrize(
    ("role", "operator", "admin"),
    [("owner", False, True), ("admin", False, True), ("member", False, False), ("member", True, True)],
)
def test_owners_admins_and_the_operator_are_admins(role, operator, admin):
    token = create_access_token("ann", "e", "acme", role, operator=operator)
    context = context_of({"Authorization": f"Bearer {token}"})
    assert (context.is_admin, context.operator) == (admin, operator)


def test_a_key_acts_in_a_persons_name_within_its_scopes():
    asked = []

    def verify(key):
        asked.append(key)
        return GOOD

    context = context_of({"Authorization": f"Bearer {KEY}"}, verify_api_key=verify)
    assert asked == [KEY]
    assert (context.authenticated, context.token_type, context.user_id, context.org_id, context.role) == (
        True, "api_key", "ann", "acme", "admin",
    )  # fmt: skip
    assert context.scopes == {"usage.write", "usage.read"}
    assert not context_of({"X-API-Key": KEY}, verify_api_key=lambda _: None).authenticated


def test_what_is_shown_is_json_without_the_credential(token):
    context = context_of({"X-API-Key": KEY}, verify_api_key=lambda _: GOOD)
    assert json.loads(json.dumps(context.to_dict())) == {
        "authenticated": True, "user_id": "ann", "email": None, "org_id": "acme", "role": "admin",
        "token_type": "api_key", "scopes": ["usage.read", "usage.write"], "operator": False, "is_admin": True,
    }  # fmt: skip
    person = context_of({"Authorization": f"Bearer {token}"})
    for shown in (repr(context), repr(person), json.dumps(person.to_dict()), json.dumps(context.to_dict())):
        assert KEY not in shown
        assert token not in shown
    assert "ann@example.com" not in repr(person)


@given(st.dictionaries(st.sampled_from(["Authorization", "X-API-Key", "authorization"]), st.text()))
def test_no_header_raises(headers):
    assert not context_of(headers, verify_api_key=lambda _: None).authenticated


# Keys


def test_a_key_has_the_documented_form():
    keys = {new_api_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(len(key) == 47 and has_key_form(key) for key in keys)
    assert prefix_of(KEY) == "ara_kkkkkkkk"
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    for wrong in (
        "",
        "ara_",
        "ara_" + "k" * 10,
        "ara_" + "k" * 197,
        KEY + "\n",
        KEY + "é",
        "svc_" + "k" * 43,
        f" {KEY}",
    ):
        assert not has_key_form(wrong)
    assert has_key_form("ara_" + "k" * 11)
    assert has_key_form("ara_" + "k" * 196)


def answer(status=200, **changed):
    told = {"token_type": "api_key", "user_id": "ann", "org_id": "acme", "role": "admin", "scopes": ["usage.read"]}
    return httpx.Response(status, json={"success": True, "data": told | {"expires_at": None} | changed})


@pytest.fixture
def platform(monkeypatch):
    """Answers in the platform's place, and remembers what was asked of it."""
    seen = SimpleNamespace(requests=[], answer=answer())

    def handle(request):
        seen.requests.append(request)
        if isinstance(seen.answer, Exception):
            raise seen.answer
        return seen.answer

    client = httpx.Client(transport=httpx.MockTransport(handle))
    monkeypatch.setattr(key_verification, "_http", lambda _process_id: client)
    return seen


def test_the_platform_is_asked_and_its_yes_remembered(platform, monkeypatch):
    expected = VerifiedKey("ann", "acme", "admin", frozenset({"usage.read"}))
    assert ask_platform(KEY) == expected
    assert context_of({"Authorization": f"Bearer {KEY}"}).scopes == {"usage.read"}
    (request,) = platform.requests
    assert (request.method, str(request.url)) == ("GET", "https://platform.example/api/auth/verify")
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    later = datetime.now(UTC).timestamp() + 31
    monkeypatch.setattr("aragora.billing.key_verification.time.time", lambda: later)
    assert ask_platform(KEY) == expected
    assert len(platform.requests) == 2


def test_another_platform_is_asked_anew(platform, monkeypatch):
    ask_platform(KEY)
    monkeypatch.setenv("ARAGORA_URL", "https://another.example")
    ask_platform(KEY)
    assert len(platform.requests) == 2


def test_a_key_is_remembered_no_longer_than_it_lives(platform, monkeypatch):
    moment = datetime.now(UTC) + timedelta(seconds=10)
    platform.answer = answer(expires_at=moment.isoformat())
    assert ask_platform(KEY) == VerifiedKey("ann", "acme", "admin", frozenset({"usage.read"}), moment)
    monkeypatch.setattr("aragora.billing.key_verification.time.time", moment.timestamp)
    assert ask_platform(KEY) is None


NO = [
    answer(401),
    answer(403),
    answer(503),
    httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
    httpx.Response(200, text="<html>"),
    httpx.Response(200, json=[]),
    httpx.Response(200, json={"data": None}),
    httpx.Response(200, content=b"[" * 100_000),
    answer(token_type="access"),
    answer(user_id=None),
    answer(role=1),
    answer(scopes=None),
    answer(scopes=[1]),
    answer(org_id=7),
    answer(expires_at="never"),
    answer(expires_at="2999-01-01T00:00:00"),
    answer(expires_at="2001-01-01T00:00:00Z"),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
]


@pytest.mark.parametrize("said", NO, ids=lambda said: f"{said!r}"[:40])
def test_anything_but_a_plain_yes_is_no_and_the_key_is_not_logged(platform, caplog, said):
    platform.answer = said
    caplog.set_level(logging.DEBUG)
    assert ask_platform(KEY) is None
    assert ask_platform(KEY) is None
    assert len(platform.requests) == 2
    assert KEY not in caplog.text


def test_what_cannot_be_a_key_is_not_sent_anywhere(platform):
    assert ask_platform("ara_short") is None
    assert ask_platform("eyJ.eyJ.x" * 10) is None
    assert platform.requests == []
