from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.errors import JournalError
from easyds_tune.journal.events import (
    NoteEvent,
    ReportEvent,
    ResumeEvent,
    TrialState,
    encode_line,
)
from easyds_tune.journal.reader import JournalReader, read_events
from easyds_tune.journal.repair import repair
from easyds_tune.journal.replay import read_record
from easyds_tune.journal.writer import JournalWriter

Lines = list[bytes]


def lines_of(path: Path) -> Lines:
    return path.read_bytes().splitlines(keepends=True)


def broken(line: bytes) -> bytes:
    return line.replace(b'"event"', b'"evend"')


def damage(path: Path, *numbers: int) -> bytes:
    """Break the checksums of some lines, counted from 1; the file as it is then."""
    lines = lines_of(path)
    for number in numbers:
        lines[number - 1] = broken(lines[number - 1])
    path.write_bytes(b"".join(lines))
    return path.read_bytes()


def test_a_whole_journal_is_left_as_it_is(journal: Path) -> None:
    before = journal.read_bytes()
    done = repair(journal)
    assert (str(done), done.damaged) == ("nothing was wrong", None)
    assert journal.read_bytes() == before
    assert list(journal.parent.iterdir()) == [journal]


def test_a_torn_end_is_cut_and_kept(journal: Path) -> None:
    before = lines_of(journal)
    for number in (1, 2):
        journal.write_bytes(b"".join(before)[:-3])
        done = repair(journal)
        kept = journal.with_name(f"journal.torn-{number}.jsonl")
        size = len(before[-1]) - 3
        assert str(done) == f"{size} bytes of a torn end were cut off and kept in {kept.name}"
        assert kept.read_bytes() == before[-1][:-3]
        assert lines_of(journal) == before[:-1]


def test_several_bad_lines_at_the_end_are_kept_in_a_copy(journal: Path) -> None:
    damaged = b"".join([*lines_of(journal)[:-2], b"{one\n", b"{two"])
    journal.write_bytes(damaged)
    done = repair(journal)
    assert done.damaged is not None
    assert done.damaged.read_bytes() == damaged
    assert done.torn_bytes == len(b"{one\n{two")
    assert len(list(read_events(journal))) == 13 + 1


def test_line_ends_of_another_system_are_mended_without_loss(journal: Path) -> None:
    before = lines_of(journal)
    other = b"".join(line[:-1] + b"\r\n" for line in before)
    journal.write_bytes(other)
    done = repair(journal)
    assert str(done) == (
        "15 lines end in LF now, not in CR LF; no line is lost; "
        "as it was, the journal is journal.damaged-1.jsonl"
    )
    assert lines_of(journal)[:-1] == before
    assert done.damaged is not None
    assert done.damaged.read_bytes() == other


def test_a_repair_that_was_killed_before_its_end_keeps_one_copy(journal: Path) -> None:
    damage(journal, 4)
    os.link(journal, journal.with_name("journal.damaged-1.jsonl"))
    assert repair(journal).damaged == journal.with_name("journal.damaged-1.jsonl")
    assert not journal.with_name("journal.damaged-2.jsonl").exists()


def test_what_is_whole_stays_and_the_rest_is_named(journal: Path) -> None:
    events = [entry.event for entry in read_events(journal)]
    damaged = damage(journal, 4, 7, 8)  # two reports of trial 000 and its end

    done = repair(journal)

    assert done.lost == [(4, 4), (7, 8)]
    assert done.damaged == journal.with_name("journal.damaged-1.jsonl")
    assert done.damaged.read_bytes() == damaged
    entries = list(read_events(journal))
    kept = [events[n] for n in range(15) if n not in (3, 6, 7)]
    assert repr([entry.event for entry in entries[:-1]]) == repr(kept)
    assert [entry.seq for entry in entries] == list(range(13))
    assert entries[-1].event == NoteEvent(f"the journal was repaired: {done}")
    assert str(done) == (
        "3 of its lines are lost (4, 7 to 8); as it was, the journal is journal.damaged-1.jsonl"
    )
    assert repr(done.record) == repr(read_record(JournalReader(journal)))
    assert sorted(path.name for path in journal.parent.iterdir()) == [
        "journal.damaged-1.jsonl",
        "journal.jsonl",
    ]


def test_what_a_trial_did_goes_with_its_lost_suggestion(journal: Path) -> None:
    damage(journal, 2)  # the suggestion of trial 000, which won
    done = repair(journal)
    assert done.lost == [(2, 8), (15, 15)]
    assert list(done.record.trials) == ["001"]
    assert done.record.final is None  # its winner is not known any more: it has to end again
    assert done.record.next_number == 2


def test_lines_moved_or_repeated_are_put_right_without_loss(journal: Path) -> None:
    lines = lines_of(journal)
    moved = [lines[0], lines[0], lines[3], lines[1], lines[2], *lines[4:], lines[5]]
    journal.write_bytes(b"".join(moved))
    done = repair(journal)
    assert done.lost == []
    assert str(done).startswith("no line is lost")
    assert lines_of(journal)[:-1] == lines


def test_an_event_behind_a_torn_one_on_the_same_line_is_kept(journal: Path) -> None:
    """As a program leaves it that appends behind a torn line."""
    lines = lines_of(journal)
    lines[5] = lines[5][:40]
    journal.write_bytes(b"".join(lines))
    assert repair(journal).lost == [(6, 6)]


def test_damage_and_a_torn_end_are_both_told(journal: Path) -> None:
    damage(journal, 4)
    journal.write_bytes(journal.read_bytes() + b"torn")
    done = repair(journal)
    assert (done.lost, done.torn_bytes) == ([(4, 4)], 4)
    assert "4 bytes of a torn end" in str(done)


def test_each_repair_keeps_the_journal_it_found(journal: Path) -> None:
    first = damage(journal, 4)
    repair(journal)
    second = damage(journal, 6)
    assert repair(journal).damaged == journal.with_name("journal.damaged-2.jsonl")
    assert journal.with_name("journal.damaged-1.jsonl").read_bytes() == first
    assert journal.with_name("journal.damaged-2.jsonl").read_bytes() == second
    assert len(read_record(JournalReader(journal)).notes) == 3


def test_a_repaired_journal_goes_on_and_the_time_since_counts_as_away(journal: Path) -> None:
    ran = read_record(JournalReader(journal)).ran
    damage(journal, 4)
    repair(journal)
    time.sleep(0.05)
    writer, record = JournalWriter.open(journal)
    with writer:
        record.apply(writer.append(ResumeEvent(2)))
    assert record.ran == pytest.approx(ran)


def without_its_first_line(lines: Lines) -> Lines:
    return [broken(lines[0]), *lines[1:]]


def with_two_writers(lines: Lines) -> Lines:
    other = encode_line(5, 1.0, ReportEvent("000", 30, {}))
    return [*lines[:6], other, *lines[6:]]


def of_a_newer_release(lines: Lines) -> Lines:
    return [resealed(lines[0], b'"version":1', b'"version":2'), broken(lines[1]), *lines[2:]]


def with_an_event_of_a_newer_release(lines: Lines) -> Lines:
    return [lines[0], broken(lines[1]), resealed(lines[2], b'"start"', b'"fork"'), *lines[3:]]


def resealed(line: bytes, old: bytes, new: bytes) -> bytes:
    """A line with something replaced, under a checksum that holds."""
    body = line[len(b'{"crc":"01234567",') : -1].replace(old, new)
    return b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_its_first_line, "jsonl:1: the first line must be whole"),
        (with_two_writers, r"jsonl:7: .*5 stands on two lines that differ"),
        (of_a_newer_release, "jsonl:1: schema version must be 1, got 2"),
        (with_an_event_of_a_newer_release, "jsonl:3: .*newer release"),
        (lambda lines: [b"\0" * 100], "jsonl:1: the first line must be whole"),
        (lambda lines: [*lines[1:], lines[0][:-5]], "jsonl:1: the first line must be whole"),
        (lambda lines: [], "jsonl:1: the first line must be whole"),
    ],
)
def test_what_cannot_be_mended_is_refused_and_left(
    journal: Path, change: Callable[[Lines], Lines], message: str
) -> None:
    damaged = b"".join(change(lines_of(journal)))
    journal.write_bytes(damaged)
    with pytest.raises(JournalError, match=message):
        repair(journal)
    assert journal.read_bytes() == damaged
    assert list(journal.parent.iterdir()) == [journal]


def test_a_trial_whose_end_is_lost_may_go_on(journal: Path) -> None:
    damage(journal, 8)
    record = repair(journal).record
    assert record.trials["000"].state is TrialState.RUNNING
    assert record.trials["000"].resumable() == [40, 20]
