from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from easyds_tune.results.rebuild import DERIVED, rebuild


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_derived_file_comes_back_from_the_record_alone(
    demo_sweep: Any, tmp_path: Path
) -> None:
    rebuild(demo_sweep.record(), tmp_path)
    before = contents(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name.rstrip("/") for name in DERIVED}
    assert {f"tensorboard/{name:03d}" for name in range(6)} <= {
        str(Path(name).parent) for name in before
    }

    for path in list(tmp_path.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rebuild(demo_sweep.record(), tmp_path)
    assert contents(tmp_path) == before


def test_damaged_files_are_replaced_and_others_left(demo_sweep: Any, tmp_path: Path) -> None:
    rebuild(demo_sweep.record(), tmp_path)
    before = contents(tmp_path)
    for name in before:
        (tmp_path / name).write_bytes(before[name][: len(before[name]) // 2])
    stale = tmp_path / "tensorboard" / "099" / "events.out.tfevents.1.099"
    stale.parent.mkdir()
    stale.write_bytes(b"of a trial that the journal does not hold")
    (tmp_path / "journal.jsonl").write_bytes(b"not ours to touch")

    rebuild(demo_sweep.record(), tmp_path)
    assert contents(tmp_path) == {**before, "journal.jsonl": b"not ours to touch"}


def test_a_sweep_without_a_trial_has_its_files_too(sweep: Any, tmp_path: Path) -> None:
    rebuild(sweep().record(), tmp_path)
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 0
    assert (tmp_path / "best.json").is_file()
