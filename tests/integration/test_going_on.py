"""Simulated sweeps that go on with other files than they began with, or unseen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from easyds_tune.results.load import load_sweep_record
from tests.integration.sweeps import command, spec_file
from tests.integration.test_simulated_sweep import LANDSCAPE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SPACE = """
def search_space(trial):
    return {"training.learning_rate": trial.suggest_float("training.learning_rate", 1e-4, %s)}
"""


def run(folder: Path, *argv: str) -> tuple[int, str]:
    with command(folder, *argv) as (process, _):
        code = process.wait(timeout=100)
    return code, (folder / "output.txt").read_text(encoding="utf-8")


def test_a_sweep_goes_on_elsewhere_with_a_mended_space_and_not_with_other_curves(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    curves, space = place / "curves.yaml", place / "space.py"
    shutil.copy(LANDSCAPE, curves)
    space.write_text(SPACE % "1e-3", encoding="utf-8")
    path = spec_file(
        place,
        "moves",
        model={"lora_r": 8},
        training={"max_steps": 12, "eval_steps": 6},
        space_file="space.py",
        search={"num_trials": 2, "sampler": "random"},
        finals=None,
    )
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    del raw["search_space"]
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert run(place, "sweep", "moves.yaml", "--simulate", "curves.yaml")[0] == 0
    resolved = json.loads((place / "results/moves/spec.resolved.json").read_text("utf-8"))
    assert sorted(resolved["fingerprints"]) == ["--simulate", "space_file"]

    place = place.rename(tmp_path / "moved")
    curves, journal = place / "curves.yaml", place / "results/moves/journal.jsonl"
    space = place / "space.py"
    before = journal.read_bytes()
    curves.write_text(curves.read_text("utf-8").replace("base: 0.25", "base: 0.5"), "utf-8")
    code, said = run(place, "resume", "moves", "--extend", "trials=3")
    assert code == 2
    assert f"--simulate: {curves} changed since the sweep began; bring it back" in said
    assert journal.read_bytes() == before

    shutil.copy(LANDSCAPE, curves)
    space.write_text(SPACE % "1e-2", encoding="utf-8")
    code, said = run(place, "resume", "moves", "--extend", "trials=3")
    assert code == 0, said
    record = load_sweep_record(place / "results/moves")
    assert len(record.trials) == 3
    assert sum("space.py changed since the sweep began" in note for note in record.notes) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_sweep_goes_on_unseen_where_its_output_takes_nothing(tmp_path: Path) -> None:
    path = spec_file(
        tmp_path,
        "unseen",
        model={"lora_r": 8},
        training={"max_steps": 12, "eval_steps": 6},
        search_space={"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        search={"num_trials": 3, "sampler": "random"},
        finals=None,
    )
    words = f"-m easyds_tune.cli.main sweep {path.name} --simulate {LANDSCAPE}"
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {words} > /dev/full"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "what the sweep found cannot be printed ([Errno 28] No space left" in done.stderr
    record = load_sweep_record(tmp_path / "results" / "unseen")
    assert record.final is not None
    assert len(record.trials) == 3
