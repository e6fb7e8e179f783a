"""Read a journal, whole or while it grows. Never writes: a torn tail is left out, not cut."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    SCHEMA_VERSION,
    Entry,
    Event,
    SweepEvent,
    checksum_holds,
    decode_line,
    has_other_end,
)


class JournalReader:
    """Iterate over the whole entries of a journal; iterate again for those appended since.

    After each pass `torn_bytes` says how many bytes at the end were left out: 0, or the length of
    one line: still being written, torn by a crash, or damaged.
    `lines` and `whole_bytes` count what was yielded so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_bytes = 0
        self.whole_bytes = 0
        self.lines = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield entries not yielded before, in order.

        Raises:
            JournalError: a line is damaged that is not the last, a line is missing, lines end in
                CR LF, or the file is not a journal of this schema version.
        """
        self.torn_bytes = 0
        with self.path.open("rb") as stream:
            stream.seek(self.whole_bytes)
            for line in stream:
                if not checksum_holds(line):
                    self.torn_bytes = self._measure_tail(line, stream)
                    return
                entry = self._decode(line)
                self.whole_bytes += len(line)
                self.lines += 1
                yield entry

    def _decode(self, line: bytes) -> Entry:
        try:
            entry = decode_line(line)
        except JournalError as error:
            raise JournalError(f"{self._place()}: {error}") from error
        if entry.seq != self.lines:
            raise JournalError(
                f"{self._place()}: seq must be {self.lines}, got {entry.seq}: lines were removed, "
                f"repeated or reordered; {repair_offer(self.path)}"
            )
        if self.lines == 0:
            check_first(entry.event, self.path)
        return entry

    def _measure_tail(self, bad_line: bytes, rest: BinaryIO) -> int:
        """Bytes of the bad line, which must be the last: a torn write leaves no more than one."""
        if has_other_end(bad_line):
            raise JournalError(
                f"{self._place()}: lines must end in LF, and this one ends in CR LF: a program "
                f"changed the line ends; {repair_offer(self.path)}"
            )
        bad = 1
        for line in rest:
            if checksum_holds(line):
                raise JournalError(
                    f"{self._place()}: a line in the middle must match its checksum, and this one "
                    f"does not although whole lines follow; {repair_offer(self.path)}"
                )
            bad += 1
        if bad > 1:
            raise JournalError(
                f"{self._place()}: every line but the last must match its checksum, and the last "
                f"{bad} do not: this is damage, not a torn write; {repair_offer(self.path)}"
            )
        return len(bad_line)

    def _place(self) -> str:
        return f"{self.path}:{self.lines + 1}"


def check_first(event: Event, path: Path) -> None:
    """Check the first event of the journal at `path`.

    Raises:
        JournalError: it is not a sweep's, or of another schema version.
    """
    if not isinstance(event, SweepEvent):
        raise JournalError(
            f"{path}:1: the first event must be the sweep's, got {type(event).__name__};"
            " restore the journal from a copy"
        )
    if event.version != SCHEMA_VERSION:
        raise JournalError(
            f"{path}:1: schema version must be {SCHEMA_VERSION}, got {event.version}; "
            "read it with the release of easyds-tune that wrote it"
        )


def repair_offer(path: Path) -> str:
    """The command that mends the journal at `path`, ready to be pasted."""
    return f"mend it with: easyds-tune repair {shlex.quote(str(path.parent))}"


def read_events(path: Path) -> Iterator[Entry]:
    """Yield every whole entry of a journal once; see `JournalReader` for the tail and errors."""
    return iter(JournalReader(path))
