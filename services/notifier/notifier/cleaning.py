"""Texts that others chose, made harmless for mail: nothing in them ends a header, hides, or makes a link. Pure."""

import re
import unicodedata

MAX_NAME = 80
"""Characters of a name that are shown."""
_SPECIAL = re.compile(r"[()<>\[\]{}:;@\\,\"=?]+")
"""What means something in an address: Python's folding loses its quotes in long names that need encoding too."""
ENCODED_WORD = "=?"
"""How RFC 2047 begins to write any character, line ends too; Python's headers decode it wherever it stands."""
_JOINERS = "\u200c\u200d"
"""Without them, some scripts and emoji fall apart."""


def plain(text: str) -> str:
    """One line, without characters that end a line, are invisible, or turn the direction of what follows."""
    shown = "".join(one if one in _JOINERS or unicodedata.category(one)[0] != "C" else " " for one in text)
    return " ".join(shown.split()).replace(ENCODED_WORD, "= ?")


def in_header(name: str) -> str:
    """A name as it can stand beside an address."""
    return " ".join(_SPECIAL.sub(" ", plain(name)).split()).lstrip(". ")[:MAX_NAME]


def unlinked(name: str) -> str:
    """A text of which no mail program makes a link: an organization called like a web site invites nobody there.

    What ends a web site's name begins with a letter: amounts and dates stay as they are.
    """
    return re.sub(r"(?<=\w)([.@:/]+)(?=[^\W\d_])", "\\1\u200b", name.replace("://", " "))


def cut(text: str, length: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
