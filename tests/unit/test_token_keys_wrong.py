"""Keys that cannot be used: each is refused in a sentence that names the variable and says what to do."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from aragora.billing.jwt_auth import JWTConfigError, create_access_token, jwks, validate_access_token

SECRET = "0123456789abcdef0123456789abcdef"
ED25519 = Ed25519PrivateKey.generate()
RSA = new_rsa(65537, 2048)


def pem(key, password=None):
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def configured(monkeypatch):
    """Sets the variables of keys, and those not named to nothing."""

    def configure(**variables):
        for name in ("ALGORITHM", "SECRET", "PREVIOUS_SECRETS", "PRIVATE_KEY", "PUBLIC_KEYS"):
            monkeypatch.delenv(f"ARAGORA_JWT_{name}", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"ARAGORA_JWT_{name}", value)

    return configure


def document_of(configured, algorithm, key):
    configured(ALGORITHM=algorithm, PRIVATE_KEY=pem(key))
    return json.dumps(jwks())


SHORT_RSA = new_rsa(65537, 1024)  # noqa: S505 -- this is what must be refused
WRONG = [
    ({}, r"ARAGORA_JWT_SECRET is not set.*openssl rand"),
    ({"SECRET": "short"}, r"ARAGORA_JWT_SECRET .*32 bytes.*openssl rand"),
    ({"SECRET": SECRET, "PREVIOUS_SECRETS": "short"}, "ARAGORA_JWT_PREVIOUS_SECRETS .*32 bytes"),
    ({"SECRET": public_pem(RSA)}, "ARAGORA_JWT_SECRET .*key of a pair"),
    ({"ALGORITHM": "none", "SECRET": SECRET}, "ARAGORA_JWT_ALGORITHM is 'none'.*HS256, EdDSA or RS256"),
    ({"ALGORITHM": "eddsa"}, "ARAGORA_JWT_ALGORITHM"),
    ({"ALGORITHM": "EdDSA", "SECRET": SECRET}, "ARAGORA_JWT_PUBLIC_KEYS is not set"),
    ({"ALGORITHM": "EdDSA", "PRIVATE_KEY": pem(RSA)}, "ARAGORA_JWT_PRIVATE_KEY .*wrong kind.*ed25519"),
    ({"ALGORITHM": "RS256", "PRIVATE_KEY": pem(ED25519)}, "ARAGORA_JWT_PRIVATE_KEY .*wrong kind.*rsa"),
    ({"ALGORITHM": "RS256", "PRIVATE_KEY": pem(new_ec(SECP256R1()))}, "ARAGORA_JWT_PRIVATE_KEY .*wrong kind"),
    ({"ALGORITHM": "RS256", "PRIVATE_KEY": pem(SHORT_RSA)}, "ARAGORA_JWT_PRIVATE_KEY .*2048 bits"),
    ({"ALGORITHM": "EdDSA", "PRIVATE_KEY": pem(ED25519, b"pw")}, "ARAGORA_JWT_PRIVATE_KEY has a password"),
    ({"ALGORITHM": "EdDSA", "PRIVATE_KEY": public_pem(ED25519)}, "ARAGORA_JWT_PRIVATE_KEY .*PEM"),
    ({"ALGORITHM": "EdDSA", "PRIVATE_KEY": "-----BEGIN nothing"}, "ARAGORA_JWT_PRIVATE_KEY .*PEM"),
    ({"ALGORITHM": "EdDSA", "PRIVATE_KEY": "/nowhere/key.pem"}, "ARAGORA_JWT_PRIVATE_KEY .*readable file"),
    ({"ALGORITHM": "EdDSA", "PUBLIC_KEYS": "/nowhere/jwks.json"}, "ARAGORA_JWT_PUBLIC_KEYS .*readable file"),
    ({"ALGORITHM": "EdDSA", "PUBLIC_KEYS": "{not json"}, "ARAGORA_JWT_PUBLIC_KEYS is no JSON"),
    ({"ALGORITHM": "EdDSA", "PUBLIC_KEYS": '{"keys": 1}'}, "ARAGORA_JWT_PUBLIC_KEYS has no list"),
    ({"ALGORITHM": "EdDSA", "PUBLIC_KEYS": '{"keys": [1, {"kty": "OKP"}]}'}, "has no key for EdDSA"),
    ({"ALGORITHM": "EdDSA", "PUBLIC_KEYS": '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'}, "or a secret"),
]  # fmt: skip


@pytest.mark.parametrize(("variables", "message"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_named_with_what_to_do(configured, variables, message):
    configured(**variables)
    for call in (lambda: create_access_token("u", "e"), lambda: validate_access_token("x"), jwks):
        with pytest.raises(JWTConfigError, match=message) as raised:
            call()
        assert SECRET not in str(raised.value)
        assert "PRIVATE KEY-----" not in str(raised.value)


def test_a_private_key_among_the_public_ones_is_refused(configured):
    entry = {**jwt.get_algorithm_by_name("EdDSA").to_jwk(ED25519, as_dict=True)}
    configured(ALGORITHM="EdDSA", PUBLIC_KEYS=json.dumps({"keys": [entry]}))
    with pytest.raises(JWTConfigError, match="private key"):
        validate_access_token("x")


def test_keys_for_other_uses_are_passed_over(configured):
    ours = json.loads(document_of(configured, "EdDSA", ED25519))["keys"]
    token = create_access_token("u", "e@example.com")
    others = [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}, {**ours[0], "use": "enc"}, {**ours[0], "alg": "RS256"}]
    configured(ALGORITHM="EdDSA", PUBLIC_KEYS=json.dumps({"keys": others + ours}))
    assert validate_access_token(token)
    configured(ALGORITHM="EdDSA", PUBLIC_KEYS=json.dumps({"keys": others}))
    with pytest.raises(JWTConfigError, match="has no key for EdDSA"):
        validate_access_token(token)
