# ruff: noqa: RUF001 -- passwords in every script
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest

from aragora.billing import passwords
from aragora.billing.passwords import check_strength, hash_password, needs_rehash, verify_password

CHEAP = {"memory_kib": 64, "time_cost": 1}


def test_a_password_is_verified_by_its_hash():
    hashed = hash_password("correct horse battery staple")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password("correct horse battery staple", hashed)
    assert not verify_password("correct horse battery stapler", hashed)
    assert not verify_password("", hashed)


def test_every_hash_has_a_salt_of_its_own():
    assert hash_password("same", **CHEAP) != hash_password("same", **CHEAP)


def test_a_hash_of_other_parameters_is_verified_and_then_replaced():
    old = hash_password("secret one", **CHEAP)
    assert verify_password("secret one", old)
    assert needs_rehash(old)
    assert not needs_rehash(old, **CHEAP)
    assert not needs_rehash(hash_password("secret one"))


def test_a_password_is_the_same_however_it_is_typed():
    composed = unicodedata.normalize("NFC", "pässwörd ﬁne １２")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    hashed = hash_password(composed, **CHEAP)
    assert verify_password(decomposed, hashed)
    assert verify_password("pässwörd fine 12", hashed)
    assert not verify_password("password fine 12", hashed)


def test_no_text_is_no_password():
    with pytest.raises(ValueError, match="empty"):
        hash_password("")


@pytest.mark.parametrize("password", ["🔑" * 20, "with\x00nul", " spaces ", "пароль", "a" * 256], ids=ascii)
def test_any_text_may_be_a_password(password):
    hashed = hash_password(password, **CHEAP)
    assert verify_password(password, hashed)
    assert not verify_password(password[:-1], hashed)


@pytest.mark.parametrize("password", ["a" * 257, "x" * 1_000_000, "half \ud800"], ids=lambda text: ascii(text[:10]))
def test_what_can_be_no_password_is_refused_before_any_work(password, monkeypatch):
    hashed = hash_password("another", **CHEAP)
    monkeypatch.setattr(passwords, "_hasher", None)
    with pytest.raises(ValueError, match="choose") as refused:
        hash_password(password)
    assert len(str(refused.value)) < 200
    assert not verify_password(password, hashed)


@pytest.mark.parametrize(
    "hashed", ["", "x", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", "é", "\x00", "\ud800"], ids=ascii
)
def test_what_is_no_hash_verifies_nothing(hashed):
    assert not verify_password("x", hashed)
    assert needs_rehash(hashed)


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "at least 8"),
        ("Tr0ub4d", "at least 8"),
        ("password", "common"),
        ("password123", "common"),
        ("aaaaaaaaaaaa", "Repeats"),
        ("abcdefghijk", "Sequences"),
        ("qwertyuiop", "common"),
        ("19870615", "guess"),
        ("aragora2025", "."),
        ("x" * 257, "at most 256"),
    ],
    ids=lambda text: text[:12],
)
def test_a_weak_password_is_refused_with_advice(password, said):
    sentence = check_strength(password)
    assert sentence is not None
    assert said in sentence
    assert len(password) < 9 or password not in sentence


@pytest.mark.parametrize(
    "password", ["correct horse battery staple", "secure_password", "kV9#mQ2$wL", "x7" + "длинный пароль" * 9]
)
def test_a_good_password_is_taken(password):
    assert check_strength(password) is None


def test_what_others_know_of_a_person_is_no_password():
    whose = ("Wilhelmina Wobblethwaitely", "wilhelmina.f@zanzibarquartz.example")
    for password in (
        "wobblethwaitely",
        "zanzibarquartz1",
        "Wilhelmina Wobblethwaitely",
        "wilhelmina.f@zanzibarquartz.example",
    ):
        assert check_strength(password) is None
        assert check_strength(password, personal=whose) is not None


def test_one_persons_words_are_not_held_against_another():
    def check(number):
        own = f"zanzibar{number}quartz"
        return check_strength(own, personal=[own]) is not None, check_strength(own, personal=["somebody else"]) is None

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(check, range(40))) == {(True, True)}
