"""Price tables: CSV files of documented prices.

Lines that start with `#` are comments; each file says there where its figures come from. The first other line names
the columns. `provider` and `model` are required; `valid_from` and one column per rate (`input_per_1m`, `per_image`,
...: the fields of `aragora.billing.prices.rates.Rates`) are there as needed. Money is in USD.

* `model` holds the ids of one model, separated by spaces; the first is the one that is shown. `*` stands for every
  other model of the provider that nobody else has a price for, `-` for an event that names no model.
* `valid_from` is a date (midnight UTC) or an RFC 3339 time with an offset. A row applies until a later row for the same
  id takes over. Empty: it always applied.
* A rate is a plain decimal. Empty: there is no price of this kind. `0`: it is free.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from aragora.billing.prices.rates import RATE_NAMES, Rates
from aragora.contracts.usage import AMOUNT

ANY_MODEL = "*"
NO_MODEL = "-"
ALWAYS = datetime.min.replace(tzinfo=UTC)
"""The `valid_from` of a price without one."""
FOREVER = datetime.max.replace(tzinfo=UTC)
"""The `valid_until` of a price that nothing supersedes."""

_DOCUMENTED = ("aragora.csv", "alwrity.csv")
"""The tables of the two documents, in the order in which they are asked."""


class PriceTableError(ValueError):
    """A price table cannot be read. The message names file, line and column, and what would be right there."""

    def __init__(self, table: str, line: int, column: str, problem: str) -> None:
        super().__init__(f"{table}, line {line}, column {column}: {problem}")
        self.table, self.line, self.column, self.problem = table, line, column, problem


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One row of a price table."""

    provider: str
    model: str
    """The id to show."""
    ids: tuple[str, ...]
    """Every id of the model, in normal form (see `normal`)."""
    rates: Rates
    source: str
    """The table's file name without its ending."""
    valid_from: datetime
    """ALWAYS, if the table gives no date."""


def normal(name: str) -> str:
    """The form in which names are compared: lower case, and a hyphen for a space ("GPT-4o Mini" is gpt-4o-mini)."""
    return name.strip().lower().replace(" ", "-")


def documented_tables() -> list[list[PriceRow]]:
    """The tables that are part of this package, the one that prevails first."""
    folder = resources.files(__package__)
    return [read_table(folder / name) for name in _DOCUMENTED]


def read_table(path: Path | Traversable) -> list[PriceRow]:
    """The rows of one price table.

    Raises:
        PriceTableError: the file cannot be read, or something in it is not as the module's text says.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PriceTableError(path.name, 0, "-", f"cannot be read as UTF-8 text: {error}") from error
    lines = _meaningful(path.name, text)
    number, columns = next(lines, (0, []))
    _check_columns(path.name, number, columns)
    rows: list[PriceRow] = []
    seen: dict[tuple[str, str, datetime], int] = {}
    for number, cells in lines:
        if len(cells) != len(columns):
            raise PriceTableError(
                path.name, number, "-", f"has {len(cells)} cells where there are {len(columns)} columns"
            )
        row = _row(path.name, number, dict(zip(columns, (cell.strip() for cell in cells), strict=True)))
        for model_id in row.ids:
            first = seen.setdefault((row.provider, model_id, row.valid_from), number)
            if first != number:
                raise PriceTableError(path.name, number, "model", f"{model_id} already has a price in line {first}")
        rows.append(row)
    return rows


def _meaningful(table: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is neither empty nor a comment."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                yield number, next(csv.reader([line], strict=True))
            except csv.Error as error:
                raise PriceTableError(table, number, "-", f"is not CSV: {error}") from error


def _check_columns(table: str, number: int, columns: list[str]) -> None:
    for column in ("provider", "model"):
        if column not in columns:
            raise PriceTableError(table, number, column, "is missing; the first line must name the columns")
    known = ("provider", "model", "valid_from", *RATE_NAMES)
    for column in columns:
        if column not in known:
            raise PriceTableError(table, number, column, f"is not a known column; there are {', '.join(known)}")
        if columns.count(column) > 1:
            raise PriceTableError(table, number, column, "is there twice")


def _row(table: str, number: int, cells: dict[str, str]) -> PriceRow:
    models = cells["model"].split()
    for column in ("provider", "model"):
        if not cells[column]:
            raise PriceTableError(table, number, column, "is empty")
    rates: dict[str, Decimal] = {}
    for column in RATE_NAMES:
        cell = cells.get(column, "")
        if cell and not AMOUNT.match(cell):
            raise PriceTableError(table, number, column, f"{cell!r} is not a plain decimal such as 0.15, or empty")
        if cell:
            rates[column] = Decimal(cell)
    if not rates:
        raise PriceTableError(table, number, "-", "has no rate; write 0 for what is free")
    for column in ("cached", "cache_write", "audio_in", "audio_out", "reasoning"):
        total = "output_per_1m" if column in {"audio_out", "reasoning"} else "input_per_1m"
        if f"{column}_per_1m" in rates and total not in rates:
            raise PriceTableError(table, number, f"{column}_per_1m", f"needs {total} beside it, of which it is part")
    return PriceRow(
        provider=normal(cells["provider"]),
        model=models[0],
        ids=tuple(normal(model) for model in models),
        rates=Rates(**rates),
        source=table.rsplit(".", 1)[0],
        valid_from=_moment(table, number, cells.get("valid_from", "")),
    )


def _moment(table: str, number: int, text: str) -> datetime:
    if not text:
        return ALWAYS
    try:
        if len(text) == len("2025-01-01"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        message = (
            f"{text!r} is neither a date such as 2025-01-31 nor a time with an offset such as 2025-01-31T12:00:00Z"
        )
        raise PriceTableError(table, number, "valid_from", message)
    return moment.astimezone(UTC)
