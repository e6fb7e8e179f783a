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

from easyds_tune.drafts import draft_of, remove_dead_drafts
from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    LINE_START,
    Entry,
    NoteEvent,
    checksum_holds,
    decode_line,
    encode_line,
)
from easyds_tune.journal.reader import JournalReader, check_first
from easyds_tune.journal.replay import SweepRecord, read_record
from easyds_tune.journal.writer import JournalWriter, sync_folder


@dataclass(frozen=True, slots=True)
class Repair:
    """What was wrong with a journal, and what it says now.

    torn_bytes: cut off its end. lost: the first and the last line, from 1, of each stretch of
    events that are no more. damaged: where the journal is kept as it was, None where its middle
    was whole. other_ends: lines that ended in CR LF. torn: where a torn end is kept that was all
    that was wrong.
    """

    record: SweepRecord
    torn_bytes: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    damaged: Path | None = None
    other_ends: int = 0
    torn: Path | None = None

    def __str__(self) -> str:
        """In words, for a person and for the journal itself."""
        tail = f"{self.torn_bytes} bytes of a torn end were cut off" if self.torn_bytes else ""
        if self.damaged is None:
            return f"{tail} and kept in {self.torn.name}" if self.torn else "nothing was wrong"
        count = sum(last - first + 1 for first, last in self.lost)
        places = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in self.lost)
        found = f"{count} of its lines are lost ({places})" if count else "no line is lost"
        ends = f"{self.other_ends} lines end in LF now, not in CR LF" if self.other_ends else ""
        kept = f"as it was, the journal is {self.damaged.name}"
        return "; ".join(part for part in (ends, found, tail, kept) if part)


def repair(path: Path) -> Repair:
    """Make the journal at `path` whole; the caller holds the sweep's lock.

    A torn end is cut off and kept as ``journal.torn-1.jsonl``. After other damage every whole line
    is kept that still applies: not what a trial did whose suggestion is lost. CR LF becomes LF. The
    journal as it was stays beside it, as ``journal.damaged-1.jsonl``, and a note at its end says
    what happened.

    Raises:
        JournalError: nothing can be saved without the first line; or two whole lines contradict
            each other; or a newer release wrote it. Nothing was changed.
        OSError: there is no room beside the journal, or it cannot be written.
    """
    remove_dead_drafts(path)
    reader = JournalReader(path)
    try:
        record = read_record(reader)
    except JournalError:
        return _mend(path)
    kept = _keep_torn(reader) if reader.torn_bytes else None
    JournalWriter.open(path)[0].close()
    record.torn_bytes = 0
    return Repair(record, reader.torn_bytes, torn=kept)


class _Line(NamedTuple):
    """Where a whole line stands in the damaged file."""

    offset: int
    length: int


def _mend(path: Path) -> Repair:
    draft = draft_of(path)
    try:
        with path.open("rb") as damaged, draft.open("wb") as stream:
            lines, torn_bytes, other_ends = _whole_lines(path, damaged)
            record, kept = _copy(path, damaged, lines, stream)
            lost = _gaps(kept, end=max(lines) + 1)
            done = Repair(record, torn_bytes, lost, _keep_original(path), other_ends)
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


def _whole_lines(path: Path, damaged: BinaryIO) -> tuple[dict[int, _Line], int, int]:
    """The whole lines by their seq, how many bytes follow the last one in the file, and how many
    of them end in CR LF."""
    lines: dict[int, _Line] = {}
    end = whole_until = other_ends = 0
    for number, text in enumerate(damaged, start=1):
        end += len(text)
        line = _with_own_end(text)
        whole = _whole_part(line)
        if whole is None:
            continue
        other_ends += line != text
        try:
            seq = decode_line(whole).seq
        except JournalError as error:
            raise JournalError(f"{path}:{number}: {error}") from error
        length = len(whole) + len(text) - len(line)
        found = _Line(end - length, length)
        known = lines.setdefault(seq, found)
        if known is not found and _read(damaged, known) != whole:
            raise JournalError(
                f"{path}:{number}: an event must have a number of its own, and {seq} stands on two "
                "lines that differ: two drivers wrote; remove the lines of one by hand"
            )
        whole_until = end
    return lines, end - whole_until, other_ends


def _with_own_end(text: bytes) -> bytes:
    """A line with LF at its end where CR LF stands."""
    return text[:-2] + b"\n" if text.endswith(b"\r\n") else text


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
    return _with_own_end(os.pread(damaged.fileno(), line.length, line.offset))


def _gaps(kept: list[int], end: int) -> list[tuple[int, int]]:
    """Lines, from 1, of the events up to `end` that were not kept: their stretches."""
    return [
        (before + 2, after)
        for before, after in itertools.pairwise([*kept, end])
        if after > before + 1
    ]


def _keep_original(path: Path) -> Path:
    """Give the damaged file a second name: there is a journal at every moment."""
    name = _free_name(path, "damaged")
    before = _numbered(path, "damaged", int(name.stem.rpartition("-")[2]) - 1)
    if before.exists() and before.samefile(path):  # by a repair that was killed
        return before
    os.link(path, name)  # raises where the name was taken in between
    return name


def _keep_torn(reader: JournalReader) -> Path:
    """Copy what the reader left out at the journal's end into a file of its own."""
    name = _free_name(reader.path, "torn")
    with reader.path.open("rb") as journal, name.open("xb") as copy:
        journal.seek(reader.whole_bytes)
        copy.write(journal.read())
        copy.flush()
        os.fsync(copy.fileno())
    sync_folder(name.parent)
    return name


def _free_name(path: Path, what: str) -> Path:
    count = 1
    while (name := _numbered(path, what, count)).exists():
        count += 1
    return name


def _numbered(path: Path, what: str, number: int) -> Path:
    return path.with_name(f"{path.stem}.{what}-{number}{path.suffix}")
