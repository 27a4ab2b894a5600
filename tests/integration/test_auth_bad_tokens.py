"""Bad tokens and keys, addresses that only look alike, and keys that change: over HTTP, at a real auth."""

import asyncio
import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from auth_platform import PASSWORD, AuthPlatform, Person, any_email, auth_process
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from one_service import bearer, checked

from aragora.billing.jwt_auth import create_access_token, create_refresh_token, validate_access_token
from standalone.problems import StartFailed
from standalone.service import PythonService

PAIRS: dict[str, Any] = {"EdDSA": Ed25519PrivateKey.generate(), "RS256": generate_private_key(65537, 2048)}
NEW_SECRET = "the-secret-after-the-one-that-leaked-0123"
ME = "/api/auth/me"


def part(content: Any) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def forged(claims: dict[str, Any], secret: str, algorithm: str | None = "HS256", **header: Any) -> str:
    return jwt.encode(claims, secret, algorithm=algorithm, headers=header or None)


def bad_tokens(person: Person, secret: str) -> dict[str, str]:
    """Tokens of a person who exists, each wrong in one way."""
    good = jwt.decode(person.access_token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(person.access_token)["kid"]
    now = datetime.now(UTC).timestamp()
    head, body, signature = person.access_token.split(".")
    whose = (person.user_id, person.email, person.org_id)
    return {
        "expired": forged(good | {"exp": now - 60}, secret, kid=kid),
        "expired a day ago": create_access_token(*whose, issued_at=datetime.now(UTC) - timedelta(hours=25)),
        "not yet valid": forged(good | {"nbf": now + 3600}, secret, kid=kid),
        "issued in the future": forged(good | {"iat": now + 3600}, secret, kid=kid),
        "alg none": f"{part({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{body}.",
        "alg none, signed": f"{part({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{body}.{signature}",
        "of another key": forged(good, NEW_SECRET, kid=kid),
        "of a key that is not ours": forged(good, NEW_SECRET, kid="0123456789abcdef"),
        "for another audience": forged(good | {"aud": "somebody-else"}, secret, kid=kid),
        "of another issuer": forged(good | {"iss": "somebody-else"}, secret, kid=kid),
        "HS384": forged(good, secret, "HS384", kid=kid),
        "an operator's, without the key": f"{head}.{part(good | {'operator': True})}.{signature}",
        "truncated": person.access_token[:-1],
        "without a signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "9 KB": forged(good | {"x": "x" * 9_000}, secret, kid=kid),
        "a refresh token": create_refresh_token(*whose),
    }


KEYS = [
    "svc_", "svc_x", "svc_" + "x" * 43, "ara_", "ara_x", "ara_" + "x" * 43, "ara_" + "x" * 300, "ara_" + "é" * 20,
    "ARA_" + "x" * 43, "ara_" + "x" * 42 + "'", "sk_live_1234567890", "null", "Bearer",
]  # fmt: skip


async def me(running: AuthPlatform, credential: str) -> int:
    return (await running.ask("GET", ME, token=credential)).status_code


async def test_bad_tokens_are_refused_alike(running_auth: AuthPlatform):
    person = await running_auth.register()
    tokens = bad_tokens(person, running_auth.settings["ARAGORA_JWT_SECRET"])
    signed_out = (await running_auth.sign_in(person))["access_token"]
    await running_auth.ask("POST", "/api/auth/logout", token=signed_out)
    told = set()
    for what, token in {**tokens, "revoked": signed_out}.items():
        answer = await running_auth.ask("GET", ME, token=token)
        assert answer.status_code == 401, what
        told.add((answer.json()["detail"], answer.headers["WWW-Authenticate"]))
    assert len(told) == 1, "what is wrong with a token is nobody's business"
    assert await me(running_auth, person.access_token) == 200


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_keys_of_the_wrong_form_are_refused(running_auth: AuthPlatform, header: str):
    for key in KEYS:
        value = (f"Bearer {key}" if header == "Authorization" else key).encode()
        answer = checked(await running_auth.client.get("/api/auth/verify", headers={header.encode(): value}))
        assert answer.status_code == 401, key
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="aragora"')


@pytest.mark.parametrize("scheme", ["Basic", "Digest", "Token", "bearer\t", ""])
async def test_another_scheme_is_no_credential(running_auth: AuthPlatform, scheme: str):
    person = await running_auth.register()
    headers = {"Authorization": f"{scheme} {person.access_token}".strip()}
    assert checked(await running_auth.client.get(ME, headers=headers)).status_code == 401


async def test_a_header_of_a_megabyte_harms_nobody(running_auth: AuthPlatform):
    person = await running_auth.register()
    try:
        answer = await running_auth.client.get(ME, headers=bearer("x" * 1024 * 1024))
    except httpx.TransportError:
        refused = True  # the server hangs up on it
    else:
        refused = 400 <= answer.status_code < 500
    assert refused
    assert await me(running_auth, person.access_token) == 200


LOOK_ALIKES = [
    ("anna", "аnna"),  # noqa: RUF001  a Cyrillic letter
    ("anna", "ａnna"),  # noqa: RUF001  a wide one
    ("irma", "ırma"),  # noqa: RUF001  one without a dot
    ("anna", "anna\u200b"),  # a space of no width
    ("anna", "anna\u0301"),  # an accent of its own
    ("strasse", "straße"),
]


@pytest.mark.parametrize(("name", "look_alike"), LOOK_ALIKES)
async def test_a_name_that_looks_like_another_is_no_address(running_auth: AuthPlatform, name: str, look_alike: str):
    ending = any_email()
    person = await running_auth.register(f"{name}-{ending}")
    email = {"email": f"{look_alike}-{ending}"}
    signed_in = email | {"password": PASSWORD}
    invitations = f"/api/organizations/{person.org_id}/invitations"
    for path, body in (
        ("/api/auth/login", signed_in), ("/api/auth/register", signed_in),
        ("/api/auth/forgot-password", email), (invitations, email),
    ):  # fmt: skip
        answer = await running_auth.ask("POST", path, body, token=person.access_token)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["email"]
        assert look_alike not in answer.text


async def test_a_domain_that_looks_like_another_has_other_accounts(running_auth: AuthPlatform):
    name = any_email().partition("@")[0]
    person = await running_auth.register(f"{name}@example.com")
    other = await running_auth.register(f"{name}@exаmple.com")  # noqa: RUF001  a Cyrillic letter
    assert other.user_id != person.user_id
    assert other.email.startswith(f"{name}@xn--"), "one sees that it is another"
    again = await running_auth.ask("POST", "/api/auth/register", {"email": other.email.upper(), "password": PASSWORD})
    assert again.status_code == 409


Become = Callable[..., Awaitable[None]]


@pytest.fixture
async def become(running_auth: AuthPlatform) -> AsyncIterator[Become]:
    """Puts another API in the running one's place, with other settings; in the end it is back."""
    now = [running_auth.api]

    async def become(**settings: str) -> None:
        await now[0].stop(20)
        now[0] = auth_process("auth-api-instead", "api", running_auth.folder, running_auth.settings, settings)
        await now[0].start()

    yield become
    await now[0].stop(20)
    await running_auth.api.start()


def private_pem(algorithm: str) -> str:
    return PAIRS[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def signed_with_the_public_key(algorithm: str, token: str) -> str:
    """What a verifier that believes the header would accept: HS256 with the key that everybody may know."""
    public = PAIRS[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = jwt.get_unverified_header(token) | {"alg": "HS256"}
    content = f"{part(header)}.{token.split('.')[1]}"
    return f"{content}.{urlsafe_b64encode(hmac.digest(public, content.encode(), hashlib.sha256)).rstrip(b'=').decode()}"


async def test_key_pairs(running_auth: AuthPlatform, become: Become):
    before = await running_auth.register()
    for algorithm in PAIRS:
        await become(ARAGORA_JWT_ALGORITHM=algorithm, ARAGORA_JWT_PRIVATE_KEY=private_pem(algorithm))
        person = await running_auth.register()
        document = (await running_auth.ask("GET", "/.well-known/jwks.json")).json()
        assert await me(running_auth, person.access_token) == 200
        assert await me(running_auth, before.access_token) == 401, "what signed it verifies nothing here"
        assert await me(running_auth, signed_with_the_public_key(algorithm, person.access_token)) == 401
        assert {"d", "p", "q", "k"}.isdisjoint(*document["keys"])

        # Any program can verify with what is public; and so can a service that has nothing else.
        key = jwt.PyJWKSet.from_dict(document)[jwt.get_unverified_header(person.access_token)["kid"]]
        claims = jwt.decode(person.access_token, key, algorithms=[algorithm], audience="aragora", issuer="aragora")
        assert claims["sub"] == person.user_id
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("ARAGORA_JWT_SECRET")
            patch.setenv("ARAGORA_JWT_ALGORITHM", algorithm)
            patch.setenv("ARAGORA_JWT_PUBLIC_KEYS", json.dumps(document))
            verified = validate_access_token(person.access_token)
        assert verified is not None
        assert verified.user_id == person.user_id
        before = person


async def test_a_secret_is_replaced_without_signing_anybody_out(running_auth: AuthPlatform, become: Become):
    old, secret = await running_auth.register(), running_auth.settings["ARAGORA_JWT_SECRET"]
    await become(ARAGORA_JWT_SECRET=NEW_SECRET, ARAGORA_JWT_PREVIOUS_SECRETS=secret)
    assert await me(running_auth, old.access_token) == 200
    new = (await running_auth.sign_in(old))["access_token"]
    assert await me(running_auth, new) == 200
    kids = [jwt.get_unverified_header(token)["kid"] for token in (old.access_token, new)]
    assert kids[0] != kids[1]
    answer = await running_auth.ask("POST", "/api/auth/refresh", {"refresh_token": old.refresh_token})
    assert answer.status_code == 200

    await become(ARAGORA_JWT_SECRET=NEW_SECRET)
    assert await me(running_auth, old.access_token) == 401
    assert await me(running_auth, new) == 200


WITHOUT = [
    ("ARAGORA_JWT_SECRET", ""),
    ("ARAGORA_JWT_SECRET", "too-short"),
    ("ARAGORA_JWT_ALGORITHM", "none"),
    ("ARAGORA_SEALING_KEYS", ""),
    ("ARAGORA_SEALING_KEYS", "too-short"),
]


async def test_without_its_secrets_auth_does_not_start(running_auth: AuthPlatform, tmp_path: Path):
    async def start(number: int, variable: str, value: str) -> None:
        settings = {**running_auth.settings, "ARAGORA_PORT": "0", variable: value}
        api = PythonService(f"auth-without-{number}", tmp_path, ["auth", "api"], settings)
        with pytest.raises(StartFailed, match=f"{variable}.*(set it|set to|needs|is not)") as refused:
            await asyncio.wait_for(api.run_once(), 60)
        assert "too-short" not in str(refused.value)

    await asyncio.gather(*(start(number, *one) for number, one in enumerate(WITHOUT)))
