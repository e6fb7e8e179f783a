"""End a sweep: verify the contenders' checkpoints, then write the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from easyds_tune.journal.events import Event, FinalEvent, NoteEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.finals import find_best, settle
from easyds_tune.results.load import JOURNAL_NAME
from easyds_tune.results.verified import loss_notes, verified, with_events
from easyds_tune.sweep.collector import found_checkpoints, restore_note

EXIT_DONE, EXIT_NOTHING_FIT = 0, 3

Say = Callable[[str], object]


def final_events(record: SweepRecord, folder: Path, say: Say) -> list[Event]:
    """The events that end a sweep: contenders that do not verify, and the winner of the others."""
    after, events = losses_of(record, folder, say)
    return [*events, _final(after)]


def mending(record: SweepRecord, folder: Path, say: Say) -> tuple[SweepRecord, list[Event]]:
    """The record as the checkpoints on disk have it, and the events that make it so.

    For a resume or a repair. Checkpoints that are whole again come back, contenders that are
    missing or damaged are lost. Where the sweep had ended and its winner changes, its new end
    follows, unless all finalists are lost: `resume` then judges others. The given record stays as
    it is.
    """
    events: list[Event] = []
    found = found_checkpoints(record, folder)
    for checkpoint in found:
        say(f"{restore_note(checkpoint)}; it can win")
        events += [NoteEvent(restore_note(checkpoint)), checkpoint]
    after, losses = losses_of(with_events(record, found), folder, say)
    events += losses
    final = record.final
    if final is not None and (settle(record) is None or settle(after) is not None):
        final = _final(after)
    if final is not None and final != record.final:
        events.append(final)
        after.final = final
    return after, events


def append_events(folder: Path, record: SweepRecord, events: Sequence[Event]) -> None:
    """Append events to the journal and the record; hold the sweep's lock."""
    if not events:
        return
    journal, _ = JournalWriter.open(folder / JOURNAL_NAME)
    with journal:
        for event in [*map(NoteEvent, torn_notes(record)), *events]:
            record.apply(journal.append(event))


def mend(folder: Path, record: SweepRecord, say: Say) -> None:
    """Append what `mending` gives to the journal and the record; hold the sweep's lock."""
    append_events(folder, record, mending(record, folder, say)[1])


def torn_notes(record: SweepRecord) -> list[str]:
    """That opening the journal cuts a torn line off its end."""
    if not record.torn_bytes:
        return []
    return [f"the journal ended in {record.torn_bytes} bytes of a torn line, which were cut"]


def losses_of(record: SweepRecord, folder: Path, say: Say) -> tuple[SweepRecord, list[Event]]:
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
