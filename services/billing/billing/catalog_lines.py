"""Where in a TOML file a key stands: the parser of the standard library does not tell. Pure."""

import re

Key = tuple[str, ...]
"""The names that lead to a value: ("plans", "free", "limits", "debates")."""

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_TABLE = re.compile(rf"[ \t]*\[\[?[ \t]*({_DOTTED})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")


class Lines:
    """The keys of a file and their lines, counted from 1."""

    def __init__(self, text: str) -> None:
        self._line_of: dict[Key, int] = {}
        self._key_at: dict[int, Key] = {}
        table: Key = ()
        for number, line in enumerate(text.splitlines(), 1):
            header, assignment = _TABLE.match(line), _ASSIGNMENT.match(line)
            if header:
                table = key = _parts(header[1])
            elif assignment:
                key = table + _parts(assignment[1])
            else:
                continue
            for length in range(1, len(key) + 1):  # a table may be there by its inner tables alone
                self._line_of.setdefault(key[:length], number)
            self._key_at[number] = key

    def line_of(self, key: Key) -> int:
        """The line of a key; if it does not stand there by itself, of the table or value that it would be in."""
        while key and key not in self._line_of:
            key = key[:-1]
        return self._line_of.get(key, 1)

    def key_at(self, line: int) -> Key:
        """The key that stands on a line; () if none begins there."""
        return self._key_at.get(line, ())


def _parts(dotted: str) -> Key:
    return tuple(part if part[0] not in "\"'" else part[1:-1] for part in re.findall(_PART, dotted))


def written(key: Key) -> str:
    """The key as TOML writes it: `plans.free.limits."calls:gemini"`."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"' for part in key)
