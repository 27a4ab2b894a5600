from datetime import UTC, datetime

import pytest

from notifier.domain import MAX_MAILS, Choice, Mail, Member, chosen, digest_at, mails, sees
from notifier.kinds import CHOOSABLE, ENDPOINT_TYPES, KINDS

OWNER, ADMIN, MEMBER = Member("o", "owner", True), Member("a", "admin", True), Member("m", "member", True)
EVERYBODY = (OWNER, ADMIN, MEMBER)
LIMIT, INVOICE, FAILED, UNPRICED = (
    KINDS[name] for name in ("limit.reached", "invoice.finalized", "payment.failed", "usage.unpriced")
)


def told(kind, concerned=None, members=EVERYBODY, choices=(), lately=None) -> dict[str, str]:
    found = mails(kind, concerned, members, choices, lately or {})
    assert len({mail.user_id for mail in found}) == len(found)
    return {mail.user_id: mail.mode for mail in found}


def test_whom_a_kind_is_for():
    assert told(LIMIT) == {"o": "mail", "a": "mail", "m": "mail"}
    assert told(INVOICE) == {"o": "mail", "a": "mail"}
    assert told(UNPRICED) == {"o": "digest", "a": "digest"}
    assert told(LIMIT, concerned="m") == {"o": "mail", "a": "mail", "m": "mail"}
    assert told(LIMIT, concerned="another") == {"o": "mail", "a": "mail"}


@pytest.mark.parametrize("role", ["owner", "admin", "member", None])
def test_what_concerns_a_person_is_theirs_alone(role):
    kind = KINDS["account.locked"]
    assert sees(kind, role, "m", "m")
    assert not sees(kind, role, "m", "o")
    assert not sees(KINDS["attention.needed"], role, "m", None)


def test_a_persons_choice_goes_before_the_organizations_and_that_before_the_default():
    everybody, mine = Choice("", "limit.reached", "digest", False), Choice("m", "limit.reached", "off", None)
    assert chosen(LIMIT, "m", ()) == ("at_once", True)
    assert chosen(LIMIT, "m", (everybody,)) == ("digest", False)
    assert chosen(LIMIT, "m", (mine, everybody)) == ("off", False)
    assert chosen(LIMIT, "o", (mine, everybody)) == ("digest", False)
    assert chosen(INVOICE, "m", (mine, everybody)) == ("at_once", True)
    assert told(LIMIT, choices=(mine, everybody)) == {"o": "digest", "a": "digest"}


def test_what_is_essential_comes_at_once_whatever_was_chosen():
    choices = (Choice("o", "payment.failed", "off", False), Choice("", "payment.failed", "digest", False))
    assert told(FAILED, choices=choices, lately={"o": 10_000}) == {"o": "mail", "a": "mail"}
    assert chosen(FAILED, "o", choices) == ("at_once", True)


def test_an_address_that_nobody_has_shown_to_be_theirs_gets_nothing_unless_nobody_else_would_hear():
    unshown = [Member("o", "owner", False), Member("a", "admin", False), Member("m", "member", True)]
    assert told(LIMIT, members=unshown) == {"m": "mail"}
    assert told(INVOICE, members=unshown) == {}
    assert told(FAILED, members=unshown) == {"o": "mail"}
    assert told(FAILED, members=[*unshown, Member("b", "admin", True)]) == {"b": "mail"}


def test_whoever_has_had_many_gets_the_rest_with_the_digest():
    assert told(LIMIT, lately={"o": MAX_MAILS, "a": MAX_MAILS - 1}) == {"o": "digest", "a": "mail", "m": "mail"}


def test_a_digest_leaves_at_its_hour():
    assert digest_at(datetime(2026, 6, 30, 7, 59, tzinfo=UTC), 8) == datetime(2026, 6, 30, 8, tzinfo=UTC)
    assert digest_at(datetime(2026, 6, 30, 8, 0, tzinfo=UTC), 8) == datetime(2026, 7, 1, 8, tzinfo=UTC)


def test_nobody_is_mailed_of_an_organization_without_people():
    assert mails(FAILED, None, (), (), {}) == []
    assert Mail("o", "mail") in mails(FAILED, None, (OWNER,), (), {})


def test_secrets_and_what_is_the_operators_reach_no_endpoint_of_an_organization():
    assert all(KINDS[name].webhook for name in ENDPOINT_TYPES)
    assert not [name for name in ENDPOINT_TYPES if name.startswith(("letter.", "account.", "attention."))]
    assert not [name for name in CHOOSABLE if name.startswith(("letter.", "account.", "attention.", "endpoint.test"))]
