"""The keys that sign and verify tokens, as the environment gives them.

| variable | means |
|---|---|
| `ARAGORA_JWT_ALGORITHM` | `HS256` (the default), `EdDSA` (Ed25519) or `RS256` |
| `ARAGORA_JWT_SECRET` | HS256: what signs and verifies, 32 bytes at least |
| `ARAGORA_JWT_PREVIOUS_SECRETS` | HS256: earlier secrets, separated by commas; what they signed is good to its end |
| `ARAGORA_JWT_PRIVATE_KEY` | EdDSA, RS256: what signs, as PEM or the path of a PEM file |
| `ARAGORA_JWT_PUBLIC_KEYS` | EdDSA, RS256: what verifies, as a JWKS document (RFC 7517) or the path of one |

The algorithm is the one configured, whatever a token's header says. Files that change are read anew within 10 seconds.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

from aragora.billing.expiring import Expiring
from aragora.billing.public_keys import private_key_from_pem, public_half, public_keys_from_jwks, thumbprint_of
from aragora.billing.token_payload import TokenPayload
from aragora.billing.token_settings import JWTConfigError

MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key as long as the hash at least
LOOK_SECONDS = 10
"""How often the files of keys are looked at."""
_VERIFIED_TOKENS = 8_192
_VARIABLES = (
    "ARAGORA_JWT_ALGORITHM",
    "ARAGORA_JWT_SECRET",
    "ARAGORA_JWT_PREVIOUS_SECRETS",
    "ARAGORA_JWT_PRIVATE_KEY",
    "ARAGORA_JWT_PUBLIC_KEYS",
)
_log = logging.getLogger("aragora.billing")


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The keys in force. `signing` is the `kid` of the one that signs, or None where tokens are only verified."""

    algorithm: str
    signing: str | None
    signing_key: Any = field(repr=False)
    verifying: Mapping[str, Any] = field(repr=False)
    """By `kid`: the bytes of a secret, or a public key of `cryptography`."""
    jwks: Mapping[str, Any]
    """The public keys as a JWKS document (RFC 7517). With HS256 there are none."""
    verified: Expiring[TokenPayload] = field(default_factory=lambda: Expiring(_VERIFIED_TOKENS), repr=False)
    """Tokens of which these keys have verified the signature. Other keys, another memory."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """The `kid` that the first part of a verified token holds, so that it need not be read each time."""

    def candidates(self, token: str) -> Iterable[tuple[str, Any]]:
        """The keys that may have signed a token: the one it names, or all of them if it names none.

        Raises:
            jwt.InvalidTokenError: it is not a token at all.
        """
        kid = self.headers.get(token.partition(".")[0]) or jwt.get_unverified_header(token).get("kid")
        if kid is None:  # from before tokens named their key
            return self.verifying.items()
        return [(kid, self.verifying[kid])] if kid in self.verifying else []


@dataclass(slots=True)
class _Read:
    """Keys with what they were made from: the variables' values, and the files with their state then."""

    settings: tuple[str | None, ...]
    keys: TokenKeys
    files: dict[Path, tuple[int, ...] | None]
    look_again_at: float


_read: _Read | None = None


def token_keys() -> TokenKeys:
    """The keys in force, parsed again only if a variable or a file has changed.

    If a file that was good cannot be read any more, the keys of before stay in force, and the log says why.

    Raises:
        JWTConfigError: a key is missing, weak, unreadable or of the wrong kind; the message names the variable.
    """
    global _read  # noqa: PLW0603 -- one environment, one set of keys
    settings = tuple(map(os.environ.get, _VARIABLES))
    read = _read
    if read is not None and read.settings == settings:
        if not read.files or (now := time.monotonic()) < read.look_again_at:
            return read.keys
        read.look_again_at = now + LOOK_SECONDS
        if all(_state_of(path) == state for path, state in read.files.items()):
            return read.keys
        try:
            _read = _parse(settings)
        except JWTConfigError as trouble:
            _log.error("the keys of tokens changed, and the old ones stay in force: %s", trouble)
            return read.keys
        return _read.keys
    _read = _parse(settings)
    return _read.keys


def jwks() -> dict[str, Any]:
    """The public keys that verify tokens, as a JWKS document (RFC 7517); `{"keys": []}` with HS256.

    Raises:
        JWTConfigError: see `token_keys`.
    """
    return dict(token_keys().jwks)


def _parse(settings: tuple[str | None, ...]) -> _Read:
    algorithm, secret, previous, private, public = (value or "" for value in settings)
    files: dict[Path, tuple[int, ...] | None] = {}
    match algorithm or "HS256":
        case "HS256":
            keys = _shared_secrets(secret, previous)
        case "EdDSA" | "RS256":
            keys = _key_pair(algorithm, private, public, files)
        case _:
            raise JWTConfigError(
                f"ARAGORA_JWT_ALGORITHM is {algorithm[:40]!r}; set it to HS256, EdDSA or RS256, for every service alike"
            )
    return _Read(settings, keys, files, time.monotonic() + LOOK_SECONDS)


def _shared_secrets(secret: str, previous: str) -> TokenKeys:
    current = _secret("ARAGORA_JWT_SECRET", secret)
    older = [_secret("ARAGORA_JWT_PREVIOUS_SECRETS", text) for part in previous.split(",") if (text := part.strip())]
    by_id = {_kid_of(key): key for key in (current, *older)}
    return TokenKeys("HS256", _kid_of(current), current, by_id, {"keys": []})


def _secret(variable: str, text: str) -> bytes:
    key = text.encode(errors="surrogateescape")
    if len(key) < MIN_SECRET_BYTES:
        problem = f"has a secret of less than {MIN_SECRET_BYTES} bytes" if text else "is not set"
        raise JWTConfigError(
            f"{variable} {problem}; set it to the same random value for every service, "
            "such as the output of: openssl rand -hex 32"
        )
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key)
    except jwt.InvalidKeyError as error:  # a certificate, or a public key that everybody may know
        raise JWTConfigError(
            f"{variable} holds a key of a pair; set it to the output of: openssl rand -hex 32"
        ) from error


def _kid_of(secret: bytes) -> str:
    return hashlib.sha256(b"aragora-kid:" + secret).hexdigest()[:16]


def _key_pair(algorithm: str, private: str, public: str, files: dict[Path, tuple[int, ...] | None]) -> TokenKeys:
    if not private and not public:
        raise JWTConfigError(
            f"ARAGORA_JWT_PUBLIC_KEYS is not set, and {algorithm} verifies with it; set it to the JWKS document "
            "that the auth service answers at /.well-known/jwks.json, or to the path of a file with it "
            "(the auth service itself needs ARAGORA_JWT_PRIVATE_KEY)"
        )
    signing_key, signing, verifying = None, None, {}
    if private:
        text = _text_of("ARAGORA_JWT_PRIVATE_KEY", private, lambda value: value.startswith("-----BEGIN"), files)
        signing_key = private_key_from_pem(algorithm, text)
        signing = thumbprint_of(public_half(signing_key))
        verifying[signing] = public_half(signing_key)
    if public:
        text = _text_of("ARAGORA_JWT_PUBLIC_KEYS", public, lambda value: value.startswith("{"), files)
        verifying |= public_keys_from_jwks(algorithm, text)
    return TokenKeys(algorithm, signing, signing_key, verifying, _document(algorithm, verifying))


def _document(algorithm: str, verifying: Mapping[str, Any]) -> dict[str, Any]:
    signer = jwt.get_algorithm_by_name(algorithm)
    return {
        "keys": [
            {**signer.to_jwk(key, as_dict=True), "kid": kid, "alg": algorithm, "use": "sig", "key_ops": ["verify"]}
            for kid, key in verifying.items()
        ]
    }


def _text_of(
    variable: str, value: str, is_text: Callable[[str], bool], files: dict[Path, tuple[int, ...] | None]
) -> str:
    value = value.strip()
    if is_text(value):
        return value
    path = Path(value)
    try:
        files[path] = _state_of(path)
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or no UTF-8 in the file
        raise JWTConfigError(
            f"{variable} is neither a key nor the path of a readable file ({type(error).__name__}); "
            "give the text itself, or a path that this service may read"
        ) from error


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What is different when the file has changed; None if there is no such file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
