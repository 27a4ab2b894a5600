"""Users and organizations as a product keeps them."""

# ruff: noqa: RUF001 -- letters that look alike are what some of this is about

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora.billing.models import Organization, SubscriptionTier, User, generate_slug, normalize_email


def user(**changed):
    return User(**{"email": "Ann@Example.com", "name": "Ann Lee", **changed})


def test_nothing_that_is_shown_tells_a_secret():
    ann = user()
    ann.set_password("a long enough password")
    key = ann.generate_api_key()
    secrets = [ann.password_hash, ann.api_key_hash, "a long enough password"]
    for shown in (repr(ann), str(ann), json.dumps(ann.to_dict())):
        assert not [secret for secret in [*secrets, key] if secret and secret in shown]
    sensitive = json.dumps(ann.to_dict(include_sensitive=True))
    assert key in sensitive
    assert not [secret for secret in secrets if secret and secret in sensitive]
    assert "ann@example.com" not in repr(ann)
    assert "Ann Lee" not in repr(ann)


def test_what_is_shown_reads_back():
    ann = user(role="admin", org_id="acme", email_verified=True, is_active=False)
    key = ann.generate_api_key()
    for include_sensitive in (False, True):
        shown = json.loads(json.dumps(ann.to_dict(include_sensitive=include_sensitive)))
        restored = User.from_dict({**shown, "unknown": 1})
        assert restored.to_dict(include_sensitive=include_sensitive) == shown
        assert restored.verify_api_key(key) == include_sensitive
        assert not restored.verify_password("anything")
    assert User.from_dict({"email": "bob@example.com"}).role == "member"


def test_a_key_replaces_the_one_before():
    ann = user()
    assert not ann.has_api_key
    first, second = ann.generate_api_key(), ann.generate_api_key()
    assert (ann.verify_api_key(first), ann.verify_api_key(second), ann.verify_api_key("é")) == (False, True, False)
    assert ann.api_key_prefix == second[:12]


def test_without_a_password_none_is_right():
    assert not user().verify_password("")
    with pytest.raises(ValueError, match="256"):
        user().set_password("x" * 1_000_000)


@pytest.mark.parametrize(
    "changed",
    [
        {"email": None},
        {"email": 7},
        {"email": "no address"},
        {"name": ["Ann"]},
        {"id": 7},
        {"role": "emperor"},
        {"org_id": 7},
        {"is_active": "yes"},
        {"email_verified": 1},
        {"created_at": "yesterday"},
        {"created_at": "2025-01-01T00:00:00"},
        {"created_at": 0},
        {"api_key": "secret-value"},
        {"api_key": 7},
    ],
    ids=str,
)
def test_a_wrong_field_is_named_and_not_repeated(changed):
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=r"e-mail|@-sign" if value == "no address" else name) as refused:
        User.from_dict({**user().to_dict(), **changed})
    assert str(value) not in str(refused.value) or len(str(value)) < 4


# E-mail addresses


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Ann.Lee+tag@Example.COM", "ann.lee+tag@example.com"),
        ("  ann@example.com\n", "ann@example.com"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("ann@ＥＸＡＭＰＬＥ．com", "ann@example.com"),
        ("operator@localhost", "operator@localhost"),
        ("ann@printer.Local", "ann@printer.local"),
        ("ann@acme.test", "ann@acme.test"),
        ("ann@intranet", "ann@intranet"),
        (f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com", f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com"),
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_an_address_has_one_form(written, normal):
    assert normalize_email(written) == normal
    assert normalize_email(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@@example.com",
        "ann@exa mple.com",
        "ann lee@example.com",
        "Ann <ann@example.com>",
        '"ann lee"@example.com',
        "ann@[127.0.0.1]",
        "ann..lee@example.com",
        "ann@example..com",
        "ann@-example.com",
        "ann@example.com\r\nBcc: everybody@example.com",
        "ann@\x00example.com",
        "ann@exam\u200bple.com",
        "ann@\u202eexample.com",
        "ann@\ud800.com",
        "ann@local@local",
        "@localhost",
        "ann@.local",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64 + ".com",
        "a@" + "b." * 200 + "com",
        "a" * 1_000_000 + "@example.com",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_is_no_address_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"\w.*\.$") as refused:
        normalize_email(text)
    assert len(str(refused.value)) < 250
    assert len(text) < 12 or text not in str(refused.value)


LOOK_ALIKES = [
    "\u0430nn@example.com",  # Cyrillic a
    "ann\u200b@example.com",
    "ａｎｎ@example.com",
    "ann\u0307@example.com",
    "\u212aate@example.com",  # the Kelvin sign
    "a\u0149n@example.com",
    "аnn@еxample.com",
]


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=ascii)
def test_a_look_alike_before_the_sign_is_refused(text):
    with pytest.raises(ValueError, match="Before the @-sign"):
        normalize_email(text)


@pytest.mark.parametrize("domain", ["ex\u0430mple.com", "examp1e.com", "exampl\u0435.com"], ids=ascii)
def test_a_look_alike_domain_is_another_address(domain):
    found = normalize_email(f"ann@{domain}")
    assert found != "ann@example.com"
    assert found.isascii()


@given(st.text())
def test_no_text_but_an_address_is_taken(text):
    for candidate in (text, f"{text}@example.com", f"ann@{text}", f"ann@{text}.local"):
        try:
            found = normalize_email(candidate)
        except ValueError:
            continue
        assert found.isascii()
        assert found == found.lower()
        assert normalize_email(found) == found


# Organizations


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Acme Corp", "acme-corp"),
        ("  --Acme,   Corp!-- ", "acme-corp"),
        ("Crème Brûlée & Söhne", "creme-brulee-sohne"),
        ("Straße 7", "strasse-7"),
        ("ＡＣＭＥ ②", "acme-2"),
        ("会社", "organization"),
        ("", "organization"),
        ("🎉", "organization"),
        ("a" * 62 + " b", "a" * 62),
        ("x" * 1_000_000, "x" * 63),
        ("../../etc/passwd", "etc-passwd"),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_slug_is_made_of_letters_digits_and_dashes(name, slug):
    assert generate_slug(name) == slug


@given(st.text())
def test_every_name_has_a_slug(name):
    slug = generate_slug(name)
    assert 1 <= len(slug) <= 63
    assert set(slug) <= set(string.ascii_lowercase + string.digits + "-")
    assert slug.strip("-") == slug
    assert "--" not in slug
    assert generate_slug(slug) == slug


@pytest.mark.parametrize(("tier", "allowed"), [("free", 10), ("starter", 50), ("professional", 200)])
def test_debates_are_counted_up_to_the_limit(tier, allowed):
    org = Organization(name="Acme", tier=SubscriptionTier(tier))
    assert [org.increment_debates() for _ in range(allowed + 2)] == [True] * allowed + [False] * 2
    assert (org.debates_used_this_month, org.debates_remaining, org.is_at_limit) == (allowed, 0, True)
    org.reset_monthly_usage()
    assert (org.debates_remaining, org.is_at_limit) == (allowed, False)


def test_without_a_limit_there_is_always_one_more():
    org = Organization(name="Acme", tier=SubscriptionTier.ENTERPRISE, debates_used_this_month=10**9)
    assert org.increment_debates()
    assert (org.debates_remaining, org.is_at_limit) == (None, False)


def test_a_lower_tier_leaves_nothing_rather_than_less():
    org = Organization(name="Acme", tier=SubscriptionTier.FREE, debates_used_this_month=60)
    assert (org.debates_remaining, org.is_at_limit, org.increment_debates()) == (0, True, False)


def test_an_organization_reads_back():
    org = Organization(name="Acme Corp", tier=SubscriptionTier.STARTER, owner_id="ann", debates_used_this_month=3)
    shown = json.loads(json.dumps(org.to_dict()))
    assert Organization.from_dict({**shown, "unknown": 1}) == org
    assert (shown["slug"], shown["tier"], shown["debates_remaining"]) == ("acme-corp", "starter", 47)


@pytest.mark.parametrize(
    "changed",
    [{"name": None}, {"tier": "gold"}, {"tier": 7}, {"debates_used_this_month": -1}, {"debates_used_this_month": True}],
    ids=str,
)
def test_a_wrong_field_of_an_organization_is_named(changed):
    with pytest.raises(ValueError, match=next(iter(changed))):
        Organization.from_dict({**Organization(name="Acme").to_dict(), **changed})
