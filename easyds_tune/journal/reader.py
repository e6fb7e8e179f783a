"""Read a journal, whole or while it grows. Never writes: a torn tail is left out, not cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    SCHEMA_VERSION,
    Entry,
    SweepEvent,
    checksum_holds,
    decode_line,
)


class JournalReader:
    """Iterate over the whole entries of a journal; iterate again for those appended since.

    After each pass `torn_bytes` says how many bytes at the end were left out: 0, or the length of
    a line still being written, torn by a crash, or damaged with nothing whole behind it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_bytes = 0
        self._offset = 0
        self._lines = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield entries not yielded before, in order.

        Raises:
            JournalError: a line is damaged while a later one is whole, a line is missing, or the
                file is not a journal of this schema version.
        """
        self.torn_bytes = 0
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not checksum_holds(line):
                    self.torn_bytes = self._measure_tail(line, stream)
                    return
                entry = self._decode(line)
                self._offset += len(line)
                self._lines += 1
                yield entry

    @property
    def lines(self) -> int:
        """Whole lines read so far."""
        return self._lines

    def _decode(self, line: bytes) -> Entry:
        try:
            entry = decode_line(line)
        except JournalError as error:
            raise JournalError(f"{self._place()}: {error}") from error
        if entry.seq != self._lines:
            raise JournalError(
                f"{self._place()}: seq must be {self._lines}, got {entry.seq}: lines were removed, "
                "repeated or reordered; restore the journal from a copy"
            )
        if self._lines == 0:
            self._check_first(entry)
        return entry

    def _check_first(self, entry: Entry) -> None:
        first = entry.event
        if not isinstance(first, SweepEvent):
            raise JournalError(
                f"{self._place()}: the first event must be the sweep's, got {type(first).__name__};"
                " restore the journal from a copy"
            )
        if first.version != SCHEMA_VERSION:
            raise JournalError(
                f"{self._place()}: schema version must be {SCHEMA_VERSION}, got {first.version}; "
                "read it with the release of easyds-tune that wrote it"
            )

    def _measure_tail(self, bad_line: bytes, rest: BinaryIO) -> int:
        """Bytes from the bad line to the end; an error if a whole line follows it."""
        length = len(bad_line)
        for line in rest:
            if checksum_holds(line):
                raise JournalError(
                    f"{self._place()}: a line in the middle must match its checksum, and this one "
                    "does not although whole lines follow; restore the journal from a copy"
                )
            length += len(line)
        return length

    def _place(self) -> str:
        return f"{self.path}:{self._lines + 1}"


def read_events(path: Path) -> Iterator[Entry]:
    """Yield every whole entry of a journal once; see `JournalReader` for the tail and errors."""
    return iter(JournalReader(path))
