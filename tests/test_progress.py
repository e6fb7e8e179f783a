"""What a watched process says of itself, and that an unwatched one says nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easyds_tune import progress


@pytest.fixture(autouse=True)
def _unwatched() -> Iterator[None]:
    yield
    progress.unwatch()


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: self.now + 5e8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def said(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def due(path: Path, clock: Clock) -> float:
    """Seconds until the next sign of life has to come."""
    return said(path)["due"] - clock.now


def test_a_process_that_nobody_watches_writes_nothing(tmp_path: Path) -> None:
    progress.works_on("003")
    progress.made()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_due_before_a_trial_and_between_its_reports(tmp_path: Path) -> None:
    path = tmp_path / "alive" / "7.json"
    progress.watch(path, floor_seconds=60, factor=5, rank=1)
    content = said(path)
    assert content.pop("written") == pytest.approx(time.monotonic(), abs=5)
    assert content == {"pid": os.getpid(), "trial": None, "rank": 1, "due": None}
    progress.works_on("003")
    assert said(path)["trial"] == "003"
    assert said(path)["due"] == pytest.approx(time.monotonic() + 60, abs=5)
    progress.works_on(None)
    assert said(path)["due"] is None
    progress.unwatch()
    assert list(path.parent.iterdir()) == []


def test_the_longest_interval_moves_what_is_due_once_it_is_over_the_floor(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "alive.json"
    progress.watch(path, floor_seconds=60, factor=5)
    progress.works_on("003")
    for interval, wanted in ((1, 60), (10, 60), (20, 100), (3, 100), (30, 150)):
        clock.now += interval
        progress.made()
        assert due(path, clock) == pytest.approx(wanted)


def test_rest_counts_for_no_interval(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "alive.json"
    progress.watch(path, floor_seconds=60, factor=5)
    progress.works_on("003")
    progress.works_on(None)
    clock.now += 3600
    progress.made()
    progress.works_on("004")
    clock.now += 1
    progress.made()
    assert due(path, clock) == pytest.approx(60)


def test_signs_in_quick_succession_are_written_twice_a_second(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "alive.json"
    progress.watch(path, floor_seconds=60, factor=5)
    progress.works_on("003")
    written = set()
    for _ in range(33):
        clock.now += 1 / 16
        progress.made()
        written.add(path.read_text())
    assert len(written) == 5  # the first, and four in two seconds
    assert due(path, clock) == pytest.approx(60, abs=progress.WRITE_SECONDS)


def test_a_disk_that_takes_no_more_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alive.json"
    progress.watch(path, floor_seconds=60, factor=5)
    (tmp_path / "alive.json.new").mkdir()  # so that writing fails, for root as well
    progress.works_on("003")
    assert said(path)["trial"] is None
