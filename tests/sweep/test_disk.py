"""On a disk that is really full: a sweep waits, and loses nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyds_tune.journal.events import NoteEvent, Objective, SweepEvent
from easyds_tune.journal.reader import read_events
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.sweep.disk import Room, wait_for_room
from tests.integration.sweeps import wait_until
from tests.small_disk import fill, make_room, small_disk

DRIVER = """
import sys, time
from pathlib import Path
from easyds_tune.journal.events import NoteEvent, Objective, SweepEvent
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.sweep.disk import wait_for_room

folder = Path(sys.argv[1])
first = SweepEvent("full", "dpo", Objective("eval/reward"), 4, 40, 0.0)
journal, _ = JournalWriter.create(folder / "journal.jsonl", first)
for number in range(200):
    event = NoteEvent(f"{number} " + "x" * 1500)
    wait_for_room(lambda: journal.append(event), folder, lambda t: print(t, flush=True), print)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def notes(folder: Path) -> list[int]:
    """The numbers of the notes in the journal."""
    events = [entry.event for entry in read_events(folder / "journal.jsonl")]
    return [int(event.text.split()[0]) for event in events if isinstance(event, NoteEvent)]


def test_a_driver_waits_on_a_full_disk_and_loses_no_event(disk: Path, tmp_path: Path) -> None:
    fill(disk, leave=100_000)
    output = tmp_path / "output.txt"
    with output.open("w") as stream:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(disk)], stdout=stream, stderr=stream
        )
        try:
            wait_until(lambda: "the disk is full" in output.read_text(), 30, "a full disk")
            time.sleep(2.5)
            assert driver.poll() is None
            before = notes(disk)  # finished results are readable meanwhile
            assert before == list(range(len(before)))
            assert 30 < len(before) < 100
            make_room(disk)
            assert driver.wait(timeout=30) == 0
        finally:
            driver.kill()
    assert notes(disk) == list(range(200))
    said = [line for line in output.read_text().splitlines() if line]
    assert len(said) == 2
    assert said[0].startswith("the disk is full: ")
    assert "the sweep waits, and goes on by itself once there is room" in said[0]
    assert said[1].endswith("again: the sweep goes on")


def test_an_interrupt_ends_the_wait_and_the_journal_is_whole(disk: Path) -> None:
    first = SweepEvent("full", "dpo", Objective("eval/reward"), 4, 40, 0.0)
    journal, _ = JournalWriter.create(disk / "journal.jsonl", first)
    journal.append(NoteEvent("0"))
    fill(disk)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def append() -> object:
        return journal.append(NoteEvent("1 " + "x" * 9000))

    with pytest.raises(KeyboardInterrupt):
        wait_for_room(append, disk, lambda text: None, interrupt)
    assert notes(disk) == [0]
    make_room(disk)
    wait_for_room(append, disk, lambda text: None, interrupt)
    assert notes(disk) == [0, 1]


def test_a_word_that_cannot_be_said_does_not_end_the_wait(disk: Path) -> None:
    """The output may be redirected into a file on the same disk."""
    fill(disk)

    def say(text: str) -> None:
        (disk / "log.txt").write_text(text)

    def append() -> int:
        return (disk / "journal").write_bytes(b"x" * 5000)

    assert wait_for_room(append, disk, say, lambda: make_room(disk)) == 5000


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_other_errors_are_not_waited_for(tmp_path: Path, number: int) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        wait_for_room(fail, tmp_path, print, print)


def test_a_used_up_quota_is_waited_for(tmp_path: Path) -> None:
    tries = [OSError(errno.EDQUOT, "quota")]

    def write() -> str:
        if tries:
            raise tries.pop()
        return "written"

    said: list[str] = []
    assert wait_for_room(write, tmp_path, said.append, lambda: None) == "written"
    assert said[0].startswith("your disk quota is used up")


def test_what_was_too_little_is_not_tried_again_at_once(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    room = Room(disk, said.append)
    fill(disk, leave=1_000_000)
    room.was_too_little()  # nobody knows yet how large a checkpoint is
    assert room.is_short(0)
    assert len(said) == 1
    make_room(disk)
    assert not room.is_short(0)
    fill(disk, leave=1_000_000)
    monkeypatch.setattr("easyds_tune.sweep.disk.SECONDS_AFTER_FULL", 0.0)
    room.was_too_little()  # of a file that is gone by now, perhaps
    assert not room.is_short(0)


def test_no_trial_begins_without_room_for_its_checkpoint(disk: Path) -> None:
    said: list[str] = []
    room = Room(disk, said.append)
    assert not room.is_short(500_000)
    fill(disk, leave=100_000)
    assert room.is_short(500_000)
    assert room.is_short(500_000)
    make_room(disk)
    assert not room.is_short(500_000)
    assert [text.rpartition(": ")[2] for text in said] == [
        "no trial begins until there is room",
        "trials begin",
    ]
