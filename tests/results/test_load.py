from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.load import find_sweep, load_sweep_record


@pytest.fixture
def root(tmp_path: Path, demo_sweep: Any) -> Path:
    """A results folder with the sweeps `first` and `second`."""
    for name in ("first", "second"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        writer, _ = JournalWriter.create(folder / "journal.jsonl", demo_sweep.events[0])
        with writer:
            for event in demo_sweep.events[1:]:
                writer.append(event)
    return tmp_path / "results"


def test_a_sweep_is_found_by_name_or_by_path(root: Path) -> None:
    assert find_sweep("first", root) == root / "first"
    assert find_sweep(str(root / "second"), root) == root / "second"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("frist", "did you mean first"), ("zzz", "holds first, second")],
)
def test_an_unknown_sweep_is_a_user_error_that_helps(root: Path, name: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=remedy):
        find_sweep(name, root)


def test_with_no_sweep_at_all_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="easyds-tune sweep SPEC"):
        find_sweep("first", tmp_path / "results")


def test_a_loaded_record_is_the_journal_replayed(root: Path) -> None:
    record = load_sweep_record(root / "first")
    assert list(record.trials) == ["000", "001", "002", "003", "004", "005"]
    assert record.torn_bytes == 0


def test_a_torn_end_is_left_out_and_said(root: Path) -> None:
    path = root / "first" / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"crc":"00')
    assert load_sweep_record(root / "first").torn_bytes == 10


def test_a_folder_without_a_journal_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"must hold journal\.jsonl"):
        load_sweep_record(tmp_path)
