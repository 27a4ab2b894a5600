"""Keys that come in pairs, Ed25519 for EdDSA and RSA for RS256: reading, checking and naming them."""

import base64
import hashlib
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from aragora.billing.token_settings import JWTConfigError

PublicKey = Ed25519PublicKey | RSAPublicKey
PrivateKey = Ed25519PrivateKey | RSAPrivateKey

MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
_KINDS: dict[str, tuple[type[PrivateKey], type[PublicKey], str]] = {
    "EdDSA": (Ed25519PrivateKey, Ed25519PublicKey, "openssl genpkey -algorithm ed25519"),
    "RS256": (RSAPrivateKey, RSAPublicKey, "openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:3072"),
}


def private_key_from_pem(algorithm: str, text: str) -> PrivateKey:
    """The private key of a PEM text, for `EdDSA` or `RS256`. A backslash and an n for a line's end are understood.

    Raises:
        JWTConfigError: it cannot be read, has a password, is of the wrong kind, or is short.
    """
    kind, _, command = _KINDS[algorithm]
    advice = f"make one with: {command}"
    try:
        key = load_pem_private_key(text.replace("\\n", "\n").encode(), None)
    except TypeError as error:
        raise JWTConfigError(
            "ARAGORA_JWT_PRIVATE_KEY has a password; give the key without one, in a file that only auth may read"
        ) from error
    except Exception as error:  # cryptography has many names for what cannot be read; none may show the key
        raise JWTConfigError(f"ARAGORA_JWT_PRIVATE_KEY is no private key in PEM; {advice}") from error
    if not isinstance(key, kind):
        raise JWTConfigError(f"ARAGORA_JWT_PRIVATE_KEY is of the wrong kind for {algorithm}; {advice}")
    _check_length("ARAGORA_JWT_PRIVATE_KEY", public_half(key), advice)
    return key


def public_half(key: PrivateKey) -> PublicKey:
    """The public key that belongs to a private one."""
    return key.public_key()


def public_keys_from_jwks(algorithm: str, text: str) -> dict[str, PublicKey]:
    """The keys of a JWKS document that can verify this algorithm, by their thumbprint. The others are passed over.

    Raises:
        JWTConfigError: it cannot be read, has no such key, or holds one that must not be there.
    """
    where = "a JWKS document as the auth service answers it at /.well-known/jwks.json"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JWTConfigError(f"ARAGORA_JWT_PUBLIC_KEYS is no JSON; give {where}") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise JWTConfigError(f"ARAGORA_JWT_PUBLIC_KEYS has no list of keys; give {where}")
    found = [key for entry in listed if (key := _public_key(algorithm, entry)) is not None]
    if not found:
        raise JWTConfigError(f"ARAGORA_JWT_PUBLIC_KEYS has no key for {algorithm}; give {where}")
    for key in found:
        _check_length("ARAGORA_JWT_PUBLIC_KEYS", key, f"make one with: {_KINDS[algorithm][2]}")
    return {thumbprint_of(key): key for key in found}


def thumbprint_of(key: PublicKey) -> str:
    """The name of a public key: its SHA-256 thumbprint (RFC 7638)."""
    algorithm = "RS256" if isinstance(key, RSAPublicKey) else "EdDSA"
    members = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    required = {name: members[name] for name in ("crv", "e", "kty", "n", "x") if name in members}
    digest = hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _public_key(algorithm: str, entry: Any) -> PublicKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    if "d" in entry or "k" in entry:
        raise JWTConfigError(
            "ARAGORA_JWT_PUBLIC_KEYS holds a private key or a secret; leave it out, and replace it if others saw it"
        )
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except jwt.PyJWTError:
        return None
    return key if isinstance(key, _KINDS[algorithm][1]) else None


def _check_length(variable: str, key: PublicKey, advice: str) -> None:
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise JWTConfigError(f"{variable} has an RSA key of less than {MIN_RSA_BITS} bits; {advice}")
