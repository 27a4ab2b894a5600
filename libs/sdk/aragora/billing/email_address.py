"""E-mail addresses as the platform compares them: one person, one way of writing it."""

from email_validator import EmailNotValidError, validate_email

MAX_CHARACTERS = 254  # RFC 5321, section 4.5.3.1.3, less the angle brackets
_PRIVATE_NAMES = frozenset({"local", "localhost", "test"})
"""Reserved by RFC 6761 and 6762 for what nobody reaches from outside, as a private installation may not wish to be."""


def normalize_email(text: str) -> str:
    """The address in lower case, with its domain in ASCII (IDNA 2008): equal for equal mailboxes.

    Before the @ only ASCII is taken: a Cyrillic or Greek letter there can look like another person's address. A domain
    in such letters shows as `xn--…`. Nobody is asked whether the address exists.

    Raises:
        ValueError: it is none that mail can be sent to; the message is a sentence, and does not repeat the address.
    """
    text = text.strip() if len(text) <= 2 * MAX_CHARACTERS else text
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"An e-mail address has at most {MAX_CHARACTERS} characters.")
    local, at, domain = text.rpartition("@")
    if not local.isascii():
        raise ValueError(
            "Before the @-sign, an e-mail address may have the letters a to z, digits and ASCII signs only."
        )
    rest, dot, top = domain.rpartition(".")
    # The library takes these for mistakes, which they are on the open Internet only: it judges the rest.
    is_private = top.lower() in _PRIVATE_NAMES
    judged = f"{local}{at}{rest}{dot}com" if is_private else text
    try:
        found = validate_email(
            judged, check_deliverability=False, allow_smtputf8=False, globally_deliverable=False, strict=True
        )
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None  # it names single characters and lengths, never the address
    domain = (found.ascii_domain or "").lower()
    if is_private:
        domain = domain.removesuffix("com") + top.lower()
    normalized = f"{found.local_part.lower()}@{domain}"
    if len(normalized) > MAX_CHARACTERS:
        raise ValueError(f"An e-mail address has at most {MAX_CHARACTERS} characters, its domain written in ASCII.")
    return normalized
