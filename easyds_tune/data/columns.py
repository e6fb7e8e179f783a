"""One record's columns on their way to a record: what a converter used, and what it left over.

`Malformed` is an error of the file; `Dirty` is a record that real data holds now and then and that
is left out and counted.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 3, 60, 60

Columns = dict[str, object]


class Row(NamedTuple):
    """One raw record: where it stands (`train.jsonl:17`) and its columns."""

    where: str
    columns: Columns


class Malformed(Exception):
    """The record lacks a field or holds the wrong type: an error of the file."""


class Dirty(Exception):
    """The record is whole but of no use for training; the text is the reason it is counted by."""


class Fields:
    """The columns of one record; reading a column marks it as used."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._used: set[str] = set()
        self._unused_keys: Counter[str] = Counter()

    def get(self, name: str) -> object:
        """The value of a column, None where it is absent."""
        self._used.add(name)
        return self.columns.get(name)

    def has(self, name: str) -> bool:
        """Whether the column is there and not null; this alone does not use it."""
        return self.columns.get(name) is not None

    def string(self, name: str) -> str:
        """A column that must be there and be text."""
        self.require(name)
        value = self.get(name)
        if not isinstance(value, str):
            raise Malformed(f"{name} must be text, got {shape(value)}")
        return value

    def optional_string(self, name: str) -> str:
        """A column that may be absent, null or empty: then the empty string."""
        return self.string(name) if self.has(name) else ""

    def reply(self, name: str) -> object:
        """A column that must be there; null is an empty reply, which is left out and counted."""
        self.require(name)
        value = self.get(name)
        return "" if value is None or value != value else value

    def reply_string(self, name: str) -> str:
        """A reply that must be text or null."""
        return "" if self.reply(name) == "" else self.string(name)

    def require(self, name: str) -> None:
        """Raise Malformed where the column is absent."""
        if name not in self.columns:
            raise Malformed(f"needs the field {name!r}, has {named(self.columns)}")

    def leave(self, key: str) -> None:
        """Count a key inside a column, such as `messages[].name`, that no record holds."""
        self._unused_keys[key] += 1

    def unused(self) -> Counter[str]:
        """Columns and keys that hold a value and were not used."""
        left = {
            name: 1
            for name, value in self.columns.items()
            if name not in self._used and not is_empty(value)
        }
        return Counter(left) + self._unused_keys


def is_empty(value: object) -> bool:
    """Whether a value says nothing: null, NaN, blank text, an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or value == {} or value != value


def present(rows: Sequence[Row]) -> list[str]:
    """The columns that hold a value in at least one record, in order; a blank text is one."""
    return list(
        dict.fromkeys(
            name
            for row in rows
            for name, value in row.columns.items()
            if not is_empty(value) or (isinstance(value, str) and value)
        )
    )


def holding(rows: Sequence[Row], name: str, most: int | None = None) -> list[Row]:
    """The first records with a value in a column, all of them by default."""
    return list(islice((row for row in rows if not is_empty(row.columns.get(name))), most))


def named(columns: Iterable[str]) -> str:
    """The names of columns, the first of them where there are many."""
    first = [repr(name) if len(name) <= 60 else f"{name[:60]!r}…" for name in islice(columns, 21)]
    return ", ".join([*first[:20], "…"] if len(first) > 20 else first)


def shape(value: object) -> str:
    """Type and beginning of a value, however deep or long it is."""
    text = _SHOWN.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '…'}"
