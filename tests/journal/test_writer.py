from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from easyds_tune.errors import JournalError, SweepError
from easyds_tune.journal.events import (
    FinishEvent,
    NoteEvent,
    ReportEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.reader import JournalReader, read_events
from easyds_tune.journal.repair import repair
from easyds_tune.journal.replay import replay
from easyds_tune.journal.writer import JournalWriter


def test_an_event_is_in_the_file_and_synced_when_append_returns(
    tmp_path: Path, sweep_event: SweepEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    synced_lines: list[int] = []

    def fsync_and_count(handle: int) -> None:
        os.fdatasync(handle)
        synced_lines.append(path.read_bytes().count(b"\n"))

    monkeypatch.setattr(os, "fsync", fsync_and_count)
    writer, first = JournalWriter.create(path, sweep_event)
    second = writer.append(NoteEvent("一"))

    assert synced_lines == [1, 1, 2]  # the line, the folder, the second line
    assert (first.seq, second.seq) == (0, 1)
    writer.close()


def test_an_existing_journal_is_never_overwritten(journal: Path, sweep_event: SweepEvent) -> None:
    before = journal.read_bytes()
    with pytest.raises(FileExistsError):
        JournalWriter.create(journal, sweep_event)
    assert journal.read_bytes() == before


def test_append_returns_what_a_reader_will_read(tmp_path: Path, sweep_event: SweepEvent) -> None:
    path = tmp_path / "journal.jsonl"
    writer, first = JournalWriter.create(path, sweep_event)
    with writer:
        second = writer.append(ReportEvent("000", 1, {"eval/length": 3}))
    assert list(read_events(path)) == [first, second]


@pytest.mark.parametrize("half", ["\udcff", "\ud83d\ude00"])
def test_half_a_surrogate_pair_is_kept_readable_wherever_it_stands(
    tmp_path: Path, sweep_event: SweepEvent, half: str
) -> None:
    path = tmp_path / "journal.jsonl"
    text = f'no such file: "a{half}.jsonl" \\u0041 好'
    writer, first = JournalWriter.create(path, sweep_event)
    with writer:
        entries = [
            writer.append(event)
            for event in (
                NoteEvent(text),
                SuggestEvent("000", 0, {f"a{half}": half}, "sampler"),
                FinishEvent("000", TrialState.FAILED, 0, 1.0, TrialError("OSError", text)),
            )
        ]
    assert list(read_events(path)) == [first, *entries]
    escaped = text.encode(errors="backslashreplace").decode()
    note, suggest, finish = (entry.event for entry in entries)
    assert note == NoteEvent(escaped)
    assert isinstance(suggest, SuggestEvent)
    assert [f"a{value}" for value in suggest.params.values()] == list(suggest.params)
    assert isinstance(finish, FinishEvent)
    assert finish.error == TrialError("OSError", escaped)
    assert path.read_bytes().decode("utf-8").count("\n") == 4


def test_a_refused_event_leaves_no_trace(tmp_path: Path, sweep_event: SweepEvent) -> None:
    path = tmp_path / "journal.jsonl"
    writer, first = JournalWriter.create(path, sweep_event)
    with writer:
        with pytest.raises(TypeError):
            writer.append(NoteEvent(b"bytes"))  # type: ignore[arg-type]
        note = writer.append(NoteEvent("fine"))
    assert list(read_events(path)) == [first, note]


def test_an_opened_journal_goes_on_behind_its_last_event(journal: Path) -> None:
    before = journal.read_bytes()
    writer, record = JournalWriter.open(journal)
    assert journal.read_bytes() == before  # opening appends nothing
    assert repr(record) == repr(replay(read_events(journal)))
    with writer:
        note = writer.append(NoteEvent("resumed"))
    assert note.seq == 15
    assert list(read_events(journal))[-1] == note


@pytest.mark.parametrize("tail", [b'{"crc":"01234567","seq":15,"ti', b"\0" * 512 + b"\n", b"\n"])
def test_opening_cuts_a_torn_end_and_says_how_much(journal: Path, tail: bytes) -> None:
    before = journal.read_bytes()
    journal.write_bytes(before + tail)
    writer, record = JournalWriter.open(journal)
    assert record.torn_bytes == len(tail)
    assert journal.read_bytes() == before
    with writer:
        assert writer.append(NoteEvent("resumed")).seq == 15
    reader = JournalReader(journal)
    assert [entry.seq for entry in reader] == list(range(16))
    assert reader.torn_bytes == 0


def test_the_cut_is_on_disk_before_anything_is_appended(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write_bytes(journal.read_bytes() + b"torn")
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    writer, record = JournalWriter.open(journal)
    writer.close()
    assert sizes == [journal.stat().st_size]
    assert record.torn_bytes == 4


@pytest.mark.parametrize("damage", ["middle", "nothing whole"])
def test_opening_a_damaged_journal_is_refused_and_changes_nothing(
    journal: Path, damage: str
) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"0.75", b"0.99").replace(b"40", b"41")
    damaged = b"".join(lines) if damage == "middle" else b"x" + lines[0]
    journal.write_bytes(damaged)
    with pytest.raises(JournalError, match="repair" if damage == "middle" else "from a copy"):
        JournalWriter.open(journal)
    assert journal.read_bytes() == damaged


def test_a_full_disk_leaves_the_journal_whole_and_room_lets_it_go_on(
    small_disk: Path, sweep_event: SweepEvent
) -> None:
    """A real file system of one megabyte: the kernel takes a part of a line and then refuses."""
    path = small_disk / "journal.jsonl"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    writer, _ = JournalWriter.create(path, sweep_event)
    long = NoteEvent("长" * 10_000)
    written = 1
    with writer:
        with contextlib.suppress(OSError):
            for _ in range(100):
                writer.append(long)
                written += 1
        assert 1 < written < 100
        for _ in range(3):  # whoever waits for room may ask as often as it likes
            with pytest.raises(OSError, match="No space left"):
                writer.append(long)
        reader = JournalReader(path)
        assert len(list(reader)) == written
        assert reader.torn_bytes == 0
        ballast.unlink()
        assert writer.append(long).seq == written
    assert [entry.seq for entry in read_events(path)] == list(range(written + 1))


def test_an_interrupted_append_leaves_no_trace(
    tmp_path: Path, sweep_event: SweepEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C may come between the line and the wait for the disk."""
    path = tmp_path / "journal.jsonl"
    writer, first = JournalWriter.create(path, sweep_event)
    interrupts = [KeyboardInterrupt(), OSError("the disk is gone")]

    def interrupted(handle: int) -> None:
        if interrupts:
            raise interrupts.pop(0)

    with writer:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", interrupted)
            with pytest.raises(OSError, match="the disk is gone"):
                writer.append(NoteEvent("lost"))
        note = writer.append(NoteEvent("said again"))
    assert list(read_events(path)) == [first, note]


def test_a_journal_has_one_writer_whatever_became_of_the_sweeps_lock(journal: Path) -> None:
    writer, _ = JournalWriter.open(journal)
    text = journal.read_bytes()
    with writer:
        with pytest.raises(SweepError, match="is being written by another driver"):
            JournalWriter.open(journal)
        with pytest.raises(SweepError, match="is being written by another driver"):
            repair(journal)
    assert journal.read_bytes() == text
    JournalWriter.open(journal)[0].close()
