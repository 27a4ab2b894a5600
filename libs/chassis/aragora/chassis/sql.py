"""SQL in files, as named queries.

A file holds sections that begin with a line `-- name: fetch_open`. A query is an attribute of what `load` returns, so a
misspelt name fails loudly and a search for the name finds every use.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
# asyncpg's types are generic in its stubs only, hence the strings. A connection may be one's own or lent by a pool.

_SECTION = re.compile(r"^-- name:(.*)$", re.MULTILINE)
_names: dict[str, str] = {}


class Queries:
    """The named queries of one file, as attributes. Iterating gives `(name, sql)`, so that a test can prepare all."""

    def __init__(self, source: str, text: str) -> None:
        self._source = source
        self._sql: dict[str, str] = {}
        _, *sections = _SECTION.split(text)
        for name, sql in zip(map(str.strip, sections[::2]), map(str.strip, sections[1::2]), strict=True):
            if not name.isidentifier() or not sql:
                raise ValueError(f"{source}: {name!r} needs a name that is an identifier, and a query below it")
            if name in self._sql:
                raise ValueError(f"{source}: two queries are called {name!r}; rename one")
            self._sql[name] = sql
            _names[sql] = name

    def __getattr__(self, name: str) -> str:
        try:
            return self._sql[name]
        except KeyError:
            raise AttributeError(f"{self._source} has no query {name!r}") from None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._sql.items())


def name_of(statement: str) -> str | None:
    """The name of a query that some file holds, as a trace calls it; None for any other statement."""
    return _names.get(statement)


def load(package: str, file: str = "sql/queries.sql") -> Queries:
    """The named queries in a file inside a package.

    Raises:
        ValueError: a name is used twice or is no identifier, or a section is empty.
    """
    return Queries(f"{package}/{file}", files(package).joinpath(file).read_text(encoding="utf-8"))
