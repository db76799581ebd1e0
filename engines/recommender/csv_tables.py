"""Strict reading of CSV files with a header: what is wrong is said with file, line, column and what is allowed."""

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

#: Longest id or title, in characters.
MAX_ID: Final = 256
MAX_FIELD: Final = 4096


class DatasetError(Exception):
    """A data set cannot be used; the message says where, what was wrong and what is allowed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1; a quoted field may span several, of which it is the last."""

    file: str
    line: int

    def error(self, column: str, problem: str) -> DatasetError:
        """What to raise for a bad value."""
        return DatasetError(f"{self.file}, line {self.line}, column '{column}': {problem}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns a table must and may have; `unused` are those of the file that are neither."""

    file: str
    places: dict[str, int]
    unused: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def value(self, row: Sequence[str], name: str) -> str:
        """The value of a column in a row, without blanks around it; "" where the table lacks the column."""
        return row[self.places[name]].strip() if name in self.places else ""


@contextmanager
def table(path: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[Columns, "Rows"]]:
    """Open a CSV file (UTF-8, a BOM is skipped) and check its header. Raises DatasetError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = Rows(path.name, file)
            columns = _header(path.name, rows.first(), required, optional)
            rows.width = len(columns.places) + len(columns.unused)
            yield columns, rows
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error


class Rows:
    """The rows of an open table with their places; blank lines are skipped. Iterating raises DatasetError."""

    def __init__(self, name: str, file: TextIO) -> None:
        self._name = name
        self._reader = csv.reader(file, strict=True)
        self.width = 0

    def first(self) -> list[str]:
        """The header."""
        for _, row in self._rows():
            return row
        raise DatasetError(f"{self._name}: is empty; it must begin with a line of column names")

    def __iter__(self) -> Iterator[tuple[Place, list[str]]]:
        for place, row in self._rows():
            if len(row) != self.width:
                problem = f"has {len(row)} values, must have {self.width} like the header"
                raise DatasetError(f"{place.file}, line {place.line}: {problem} (quote values that hold commas)")
            yield place, row

    def _rows(self) -> Iterator[tuple[Place, list[str]]]:
        try:
            for row in self._reader:
                if row and any(value.strip() for value in row):
                    yield Place(self._name, self._reader.line_num), row
        except csv.Error as error:
            raise DatasetError(f"{self._name}, line {self._reader.line_num}: is not CSV ({error})") from error
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 text after line {self._reader.line_num} (byte 0x{error.object[error.start]:02x})"
            raise DatasetError(f"{self._name}: {problem}; save it as UTF-8") from error


def identifier(place: Place, column: str, value: str) -> str:
    """An id: not empty, not longer than MAX_ID. Raises DatasetError."""
    if not value:
        raise place.error(column, "is empty, must be an id")
    if len(value) > MAX_ID:
        raise place.error(column, f"has {len(value)} characters, at most {MAX_ID} are allowed")
    return value


def number(place: Place, column: str, value: str) -> float:
    """A finite number. Raises DatasetError."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise place.error(column, f"is {value[:40]!r}, must be a finite number")
    return found


def instant(place: Place, column: str, value: str) -> float:
    """Seconds since 1970, from a number or an ISO 8601 date or time (UTC unless it says). Raises DatasetError."""
    try:
        found = float(value)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(value)
            found = (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            found = math.nan
    if not math.isfinite(found):
        allowed = "must be seconds since 1970 or an ISO date such as 2026-01-31T12:00:00"
        raise place.error(column, f"is {value[:40]!r}, {allowed}")
    return found


def _header(file: str, names: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> Columns:
    cleaned = [name.strip().lower() for name in names]
    wanted = ", ".join(required) + "".join(f"[, {name}]" for name in optional)
    for name in required:
        if name not in cleaned:
            found = ", ".join(cleaned)[:120]
            raise DatasetError(f"{file}, line 1: column '{name}' is missing (found: {found}); allowed: {wanted}")
    known = [*required, *optional]
    for name in known:
        if cleaned.count(name) > 1:
            raise DatasetError(f"{file}, line 1: column '{name}' is there twice; allowed: {wanted}")
    places = {name: cleaned.index(name) for name in known if name in cleaned}
    return Columns(file, places, tuple(name for name in cleaned if name not in places))
