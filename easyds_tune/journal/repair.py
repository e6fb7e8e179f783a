"""Mend a journal that is damaged in the middle: keep what still applies, and say what is lost.

A whole line carries its number under its checksum, so lines that were moved or repeated are put
right without loss. What was there instead of a lost line is not guessed at.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    LINE_START,
    Entry,
    NoteEvent,
    checksum_holds,
    decode_line,
    encode_line,
)
from easyds_tune.journal.reader import check_first
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter, sync_folder


@dataclass(frozen=True, slots=True)
class Repair:
    """What was wrong with a journal, and what it says now.

    torn_bytes: cut off its end. lost: the first and the last line, from 1, of each stretch of
    events that are no more. damaged: where the journal is kept as it was, None where its middle
    was whole.
    """

    record: SweepRecord
    torn_bytes: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    damaged: Path | None = None

    def __str__(self) -> str:
        """In words, for a person and for the journal itself."""
        tail = f"{self.torn_bytes} bytes of a torn end were cut off" if self.torn_bytes else ""
        if self.damaged is None:
            return tail or "nothing was wrong"
        count = sum(last - first + 1 for first, last in self.lost)
        places = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in self.lost)
        found = f"{count} of its lines are lost ({places})" if count else "no line is lost"
        kept = f"as it was, the journal is {self.damaged.name}"
        return "; ".join(part for part in (found, tail, kept) if part)


def repair(path: Path) -> Repair:
    """Make the journal at `path` whole; the caller holds the sweep's lock.

    A torn end is cut off. After damage in the middle every whole line is kept that still applies:
    not what a trial did whose suggestion is lost. The journal as it was stays beside it, as
    ``journal.damaged-1.jsonl``, and a note at its end says what happened.

    Raises:
        JournalError: nothing can be saved without the first line; or two whole lines contradict
            each other; or a newer release wrote it. Nothing was changed.
        OSError: there is no room beside the journal, or it cannot be written.
    """
    try:
        writer, record = JournalWriter.open(path)
    except JournalError:
        return _mend(path)
    writer.close()
    return Repair(record, record.torn_bytes)


class _Line(NamedTuple):
    """Where a whole line stands in the damaged file."""

    offset: int
    length: int


def _mend(path: Path) -> Repair:
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with path.open("rb") as damaged, draft.open("wb") as stream:
            lines, torn_bytes = _whole_lines(path, damaged)
            record, kept = _copy(path, damaged, lines, stream)
            lost = _gaps(kept, end=max(lines) + 1)
            done = Repair(record, torn_bytes, lost, _keep_original(path))
            # At the time of the last event, so that what passed since counts as away.
            note = Entry(len(kept), record.updated, NoteEvent(f"the journal was repaired: {done}"))
            stream.write(encode_line(*note))
            record.apply(note)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)
    return done


def _whole_lines(path: Path, damaged: BinaryIO) -> tuple[dict[int, _Line], int]:
    """The whole lines by their seq, and how many bytes follow the last one in the file."""
    lines: dict[int, _Line] = {}
    end = whole_until = 0
    for number, text in enumerate(damaged, start=1):
        end += len(text)
        whole = _whole_part(text)
        if whole is None:
            continue
        try:
            seq = decode_line(whole).seq
        except JournalError as error:
            raise JournalError(f"{path}:{number}: {error}") from error
        found = _Line(end - len(whole), len(whole))
        known = lines.setdefault(seq, found)
        if known is not found and _read(damaged, known) != whole:
            raise JournalError(
                f"{path}:{number}: an event must have a number of its own, and {seq} stands on two "
                "lines that differ: two drivers wrote; remove the lines of one by hand"
            )
        whole_until = end
    return lines, end - whole_until


def _whole_part(text: bytes) -> bytes | None:
    """The whole line at the end of a line, behind what a torn write may have left before it."""
    start = text.find(LINE_START)
    while start >= 0:
        if checksum_holds(text[start:]):
            return text[start:]
        start = text.find(LINE_START, start + 1)
    return None


def _copy(
    path: Path, damaged: BinaryIO, lines: dict[int, _Line], stream: BinaryIO
) -> tuple[SweepRecord, list[int]]:
    """Write the events that apply, numbered anew; their record, and the seq each of them had."""
    if 0 not in lines:
        raise JournalError(
            f"{path}:1: the first line must be whole, for it says what the sweep is, and it is "
            "damaged; restore the journal from a copy"
        )
    first = decode_line(_read(damaged, lines[0]))
    check_first(first.event, path)
    record, kept = SweepRecord.begin(first), [0]
    stream.write(encode_line(*first))
    for seq in sorted(lines.keys() - {0}):
        entry = decode_line(_read(damaged, lines[seq]))._replace(seq=len(kept))
        try:
            record.apply(entry)
        except JournalError:
            continue  # what it builds on is lost
        stream.write(encode_line(*entry))
        kept.append(seq)
    return record, kept


def _read(damaged: BinaryIO, line: _Line) -> bytes:
    return os.pread(damaged.fileno(), line.length, line.offset)


def _gaps(kept: list[int], end: int) -> list[tuple[int, int]]:
    """Lines, from 1, of the events up to `end` that were not kept: their stretches."""
    return [
        (before + 2, after)
        for before, after in itertools.pairwise([*kept, end])
        if after > before + 1
    ]


def _keep_original(path: Path) -> Path:
    """Give the damaged file a second name: there is a journal at every moment."""
    count = 1
    while (name := path.with_name(f"{path.stem}.damaged-{count}{path.suffix}")).exists():
        count += 1
    os.link(path, name)  # raises where the name was taken in between
    return name
