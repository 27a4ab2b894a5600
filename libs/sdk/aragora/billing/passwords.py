"""Passwords: hashed with argon2id, and refused if they are easy to guess.

A password is normalized with NFKC first, as NIST SP 800-63B (2017, section 5.1.1.2) advises, so that it is the same
whatever keyboard wrote it. Hashing takes some 20 ms of a core and lets other threads run: in `asyncio`, call it with
`asyncio.to_thread`.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from threading import Lock

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MEMORY_KIB = 19_456
"""With `TIME_COST` and one lane, the least that OWASP's Password Storage Cheat Sheet advises for argon2id (2025)."""
TIME_COST = 2
"""How often the memory is gone through; see `MEMORY_KIB`."""
MIN_CHARACTERS = 8  # NIST SP 800-63B, section 5.1.1.2
MAX_CHARACTERS = 256
"""More is refused before any work is done: a password of a megabyte must cost nothing."""
_GOOD_SCORE = 3
"""zxcvbn: 10^8 guesses at least, `safely unguessable`, where the hash is slow."""
_JUDGED_CHARACTERS = 72  # all that zxcvbn takes; its work grows with the square of the length
_OUR_NAME = "aragora"
_judging = Lock()


def hash_password(password: str, *, memory_kib: int = MEMORY_KIB, time_cost: int = TIME_COST) -> str:
    """The argon2id hash of a password with a salt of its own, in the PHC string format.

    Raises:
        ValueError: it is empty, longer than 256 characters, or not text.
    """
    if not password:
        raise ValueError("The password is empty; choose one of at least 8 characters.")
    normalized = _normalized(password)
    if normalized is None:
        raise ValueError(f"The password is longer than {MAX_CHARACTERS} characters, or is not text; choose another.")
    return _hasher(memory_kib, time_cost).hash(normalized)


def verify_password(password: str, hashed: str) -> bool:
    """Is this the password of which that is the hash? False too for what is no password, or no hash."""
    normalized = _normalized(password)
    if normalized is None:
        return False
    try:
        return _hasher(MEMORY_KIB, TIME_COST).verify(hashed, normalized)
    except (VerificationError, InvalidHashError, UnicodeError):
        return False


def needs_rehash(hashed: str, *, memory_kib: int = MEMORY_KIB, time_cost: int = TIME_COST) -> bool:
    """Was it hashed with other parameters? Then hash the password again when it is given next."""
    try:
        return _hasher(memory_kib, time_cost).check_needs_rehash(hashed)
    except InvalidHashError:
        return True


def check_strength(password: str, *, personal: Iterable[str] = ()) -> str | None:
    """What is wrong with a password, as a sentence for who chose it; None if it is good.

    At least 8 characters, and 3 of 4 points from zxcvbn, which knows common passwords, names, words, dates and keyboard
    rows. `personal`: the person's name, e-mail address and the like, which others would try first.
    """
    # Its word lists take time and memory, and only what sets passwords needs them.
    from zxcvbn import matching, zxcvbn  # type: ignore[import-untyped]  # noqa: PLC0415

    normalized = _normalized(password)
    if normalized is None:
        return f"Choose a password of at most {MAX_CHARACTERS} characters."
    if len(normalized) < MIN_CHARACTERS:
        return f"Choose a password of at least {MIN_CHARACTERS} characters."
    known = {_OUR_NAME}
    for text in personal:
        words = re.split(r"[\W_]+", text[: _JUDGED_CHARACTERS * 4])
        known |= {text[:_JUDGED_CHARACTERS], *words}
    with _judging:  # zxcvbn keeps what is personal in a global of its own
        judged = zxcvbn(normalized[:_JUDGED_CHARACTERS], sorted(word for word in known if len(word) > 2))
        matching.RANKED_DICTIONARIES.pop("user_inputs", None)
    if judged["score"] >= _GOOD_SCORE:
        return None
    feedback = judged["feedback"]
    return " ".join([feedback["warning"] or "This password is easy to guess.", *feedback["suggestions"]])


def _normalized(password: str) -> str | None:
    """As it is hashed; None if it is too long or holds half a character (a lone surrogate)."""
    if len(password) > MAX_CHARACTERS:
        return None
    try:
        return unicodedata.normalize("NFKC", password).encode().decode()
    except UnicodeEncodeError:
        return None


@cache
def _hasher(memory_kib: int, time_cost: int) -> PasswordHasher:
    return PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
