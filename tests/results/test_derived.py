"""What is derived may be missing for a while, and never ends a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.derived import Boards, write_results
from easyds_tune.results.tensorboard import rebuild
from tests.small_disk import fill, make_room, small_disk

Sweep = Callable[..., Any]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=1) as folder:
        yield folder


def event_files(folder: Path) -> dict[str, bytes]:
    root = folder / "tensorboard"
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def play(sweep: Any, boards: Callable[[SweepRecord], Boards], at: dict[int, Any]) -> Boards:
    """Apply events one by one, as the driver does; at some of them something happens."""
    first, *entries = sweep.entries()
    record = SweepRecord.begin(first)
    kept = boards(record)
    for number, entry in enumerate(entries):
        if number in at:
            at[number]()
        record.apply(entry)
        trial = record.trials.get(getattr(entry.event, "trial", ""))
        name = type(entry.event).__name__
        if trial is not None and name == "StartEvent":
            kept.start(trial)
        elif trial is not None and name == "ReportEvent":
            kept.report(trial)
        elif trial is not None and name == "FinishEvent":
            kept.finish(trial)
    return kept


@pytest.mark.parametrize("first_error", range(2, 22, 3))
def test_boards_are_left_out_on_a_full_disk_and_whole_at_the_end(
    disk: Path, tmp_path: Path, demo_sweep: Any, first_error: int
) -> None:
    said: list[str] = []
    boards = play(
        demo_sweep,
        lambda record: Boards(disk, record, said.append),
        {first_error: lambda: fill(disk)},
    )
    assert len(said) == 1
    assert "is not updated until the sweep ends" in said[0]
    make_room(disk)
    boards.close()
    assert len(said) == 1
    rebuild(demo_sweep.record(), tmp_path / "tensorboard")
    assert event_files(disk) == event_files(tmp_path)


def test_without_room_at_the_end_a_word_is_said_and_nothing_half_written_stays(
    disk: Path, demo_sweep: Any
) -> None:
    said: list[str] = []
    boards = play(
        demo_sweep, lambda record: Boards(disk, record, said.append), {9: lambda: fill(disk)}
    )
    boards.close()
    write_results(demo_sweep.record(), disk, said.append)
    assert [text.split(":")[0].split(disk.name)[1] for text in said] == [
        "/tensorboard is not updated until the sweep ends, then rewritten",
        "/tensorboard could not be written; rewrite it with easyds-tune repair",
        "/*.parquet could not be written; rewrite it with easyds-tune repair",
        "/best.json could not be written; rewrite it with easyds-tune repair",
    ]
    assert not list(disk.glob(".*"))
    make_room(disk)
    said.clear()
    write_results(demo_sweep.record(), disk, said.append)
    assert said == []
    assert (disk / "best.json").exists()
    assert (disk / "metrics.parquet").exists()
