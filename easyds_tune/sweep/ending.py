"""How a sweep ends: its contenders' checkpoints are verified, then the winner is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from easyds_tune.journal.events import Event, FinalEvent, NoteEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.finals import find_best, settle
from easyds_tune.results.load import JOURNAL_NAME
from easyds_tune.results.verified import loss_notes, verified
from easyds_tune.sweep.collector import found_checkpoints

EXIT_DONE, EXIT_NOTHING_FIT = 0, 3

Say = Callable[[str], object]


def final_events(record: SweepRecord, folder: Path, say: Say) -> list[Event]:
    """The events that end a sweep: contenders that do not verify, and the winner of the others."""
    after, events = _losses(record, folder, say)
    return [*events, _final(after)]


def mending_events(record: SweepRecord, folder: Path, say: Say) -> Iterator[Event]:
    """The events that make a record agree with the checkpoints on disk, for a resume or a repair.

    Ask for the next only after the last was applied. Checkpoints that are whole again come back,
    contenders that are missing or damaged fall out. Where the sweep had ended and its winner
    changes, its new end follows, unless no finalist is left: `resume` then holds the finals again.
    """
    end, had_finals = record.final, settle(record) is not None
    for found in found_checkpoints(record, folder):
        note = f"trial {found.trial}: the checkpoint of step {found.step} is whole"
        say(f"{note}; it takes part again")
        yield NoteEvent(f"{note}, and is in the journal again")
        yield found
    after, events = _losses(record, folder, say)
    yield from events
    if end is None or (had_finals and settle(after) is None):
        return
    if (final := _final(after)) != end:
        yield final


def mend(folder: Path, record: SweepRecord, say: Say) -> None:
    """Append what `mending_events` gives to the journal and the record; hold the sweep's lock."""
    events = mending_events(record, folder, say)
    first = next(events, None)
    if first is None:
        return
    journal, _ = JournalWriter.open(folder / JOURNAL_NAME)
    with journal:
        for note in torn_notes(record):
            record.apply(journal.append(NoteEvent(note)))
        for event in itertools.chain([first], events):
            record.apply(journal.append(event))


def torn_notes(record: SweepRecord) -> list[str]:
    """That opening the journal cuts a torn line off its end."""
    if not record.torn_bytes:
        return []
    return [f"the journal ended in {record.torn_bytes} bytes of a torn line, which were cut"]


def _losses(record: SweepRecord, folder: Path, say: Say) -> tuple[SweepRecord, list[Event]]:
    """The record without contenders that do not verify; the events that say so."""
    after, losses = verified(record, folder)
    notes = loss_notes(record, after, losses)
    for note in notes:
        say(note)
    return after, [*map(NoteEvent, notes), *losses]


def _final(record: SweepRecord) -> FinalEvent:
    best = find_best(record)
    if best is None:
        return FinalEvent(None, None, EXIT_NOTHING_FIT)
    return FinalEvent(best.trial.id, best.step, EXIT_DONE)
