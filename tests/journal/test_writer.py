from __future__ import annotations

import os
from pathlib import Path

import pytest

from easyds_tune.journal.events import NoteEvent, ReportEvent, SweepEvent
from easyds_tune.journal.reader import read_events
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


def test_a_refused_event_leaves_no_trace(tmp_path: Path, sweep_event: SweepEvent) -> None:
    path = tmp_path / "journal.jsonl"
    writer, first = JournalWriter.create(path, sweep_event)
    with writer:
        with pytest.raises(TypeError):
            writer.append(NoteEvent(b"bytes"))  # type: ignore[arg-type]
        note = writer.append(NoteEvent("fine"))
    assert list(read_events(path)) == [first, note]
