"""What a service keeps secret at rest, and secrets that it need not keep at all, because it can make them again.

Both come from ARAGORA_SEALING_KEYS: the first key seals, all of them open. To rotate, put a new one in front.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MIN_KEY_BYTES = 32


class SealBroken(ValueError):
    """What was sealed cannot be opened with any of the keys: put the key that sealed it back into the list."""


class Sealer:
    """Seals, opens and signs with keys made from ARAGORA_SEALING_KEYS: random texts, separated by commas.

    Every service has keys of its own, also where the texts are the same: none opens what another one sealed.

    Raises:
        ValueError: there is no key, or one is too short.
    """

    def __init__(self, keys: str, service: str) -> None:
        given = [key.strip().encode() for key in keys.split(",") if key.strip()]
        if not given or min(map(len, given)) < MIN_KEY_BYTES:
            problem = "holds no key" if not given else f"has a key that is shorter than {MIN_KEY_BYTES} bytes"
            raise ValueError(
                f"ARAGORA_SEALING_KEYS {problem}; set it to a random value that you keep, such as the output of: "
                "openssl rand -hex 32"
            )
        self._box = MultiFernet([Fernet(urlsafe_b64encode(_derived(key, service, "seal"))) for key in given])
        self._signing = [_derived(key, service, "sign") for key in given]

    def seal(self, secret: str) -> bytes:
        """The secret, encrypted and signed (Fernet: AES-128-CBC with HMAC-SHA256)."""
        return self._box.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """What was sealed.

        Raises:
            SealBroken: it was changed, or sealed with a key that is not in the list.
        """
        try:
            return self._box.decrypt(sealed).decode()
        except InvalidToken as error:
            raise SealBroken("sealed with a key that is no longer in ARAGORA_SEALING_KEYS; put it back") from error

    def sign(self, purpose: str, text: str) -> str:
        """A signature of 256 bits in URL-safe base64, different for every purpose."""
        return _signature(self._signing[0], purpose, text)

    def signed(self, purpose: str, text: str, signature: str) -> bool:
        """Whether one of the keys made this signature. Takes equally long for any signature."""
        given = signature.encode()
        found = [hmac.compare_digest(_signature(key, purpose, text).encode(), given) for key in self._signing]
        return any(found)

    def digest(self, purpose: str, text: str) -> bytes:
        """A keyed hash, under which something can be found that should not be readable."""
        return self.digests(purpose, text)[0]

    def digests(self, purpose: str, text: str) -> list[bytes]:
        """The hashes by all of the keys, the first one's first: what an earlier key kept is under another."""
        return [hmac.digest(key, f"{purpose}\0{text}".encode(), hashlib.sha256) for key in self._signing]


def _derived(key: bytes, service: str, purpose: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=f"aragora-{service}-{purpose}".encode()).derive(key)


def _signature(key: bytes, purpose: str, text: str) -> str:
    digest = hmac.digest(key, f"{purpose}\0{text}".encode(), hashlib.sha256)
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
