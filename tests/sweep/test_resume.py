"""What may differ when a sweep goes on, and what is refused; whole sweeps are in integration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyds_tune.cli.resume import extension
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import Objective, SweepEvent
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.resume import differences, resume_sweep
from tests.integration.sweeps import spec_file


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    return load_sweep(str(spec_file(tmp_path, "small")))


def begun(folder: Path, spec: SweepSpec, **changes: Any) -> Path:
    """The folder of a sweep as far as its spec goes."""
    sweep = folder / "results" / spec.name
    sweep.mkdir(parents=True)
    resolved = {
        "spec": spec.model_dump(mode="json"),
        "working_folder": str(folder),
        "data_hashes": {},
        "versions": {},
    }
    (sweep / "spec.resolved.json").write_text(json.dumps(resolved | changes), encoding="utf-8")
    first = SweepEvent(spec.name, "dpo", Objective("eval/reward"), 4, 3, 0.0)
    JournalWriter.create(sweep / "journal.jsonl", first)[0].close()
    return sweep


def changed(spec: SweepSpec, **sections: dict[str, Any]) -> SweepSpec:
    raw = spec.model_dump(mode="json")
    for section, values in sections.items():
        raw[section] = {**(raw[section] or {}), **values}
    return SweepSpec.model_validate(raw)


def test_differences_are_told_by_field(spec: SweepSpec) -> None:
    other = changed(spec, search={"num_trials": 9}, training={"learning_rate": 0.5})
    assert differences(spec, other) == {
        "search.num_trials": (4, 9),
        "training.learning_rate": (1e-3, 0.5),
    }
    assert differences(spec, spec) == {}


def test_another_learning_rate_is_refused_and_the_difference_shown(
    spec: SweepSpec, tmp_path: Path
) -> None:
    sweep = begun(tmp_path, spec)
    before = sorted(path.name for path in sweep.iterdir())
    with pytest.raises(SpecError) as caught:
        resume_sweep(sweep, changed(spec, training={"learning_rate": 0.5}))
    (problem,) = caught.value.problems
    assert problem.startswith("training.learning_rate: was 0.001 when small began and is 0.5; only")
    assert "search.num_trials" in problem
    assert sorted(path.name for path in sweep.iterdir()) == before


def test_other_data_is_refused(spec: SweepSpec, tmp_path: Path) -> None:
    sweep = begun(tmp_path, spec, data_hashes={"train": "0" * 64})
    with pytest.raises(SpecError, match="train changed since the sweep began"):
        resume_sweep(sweep)


def test_a_sweep_without_its_resolved_spec_is_refused(spec: SweepSpec, tmp_path: Path) -> None:
    sweep = begun(tmp_path, spec)
    (sweep / "spec.resolved.json").write_text("{", encoding="utf-8")
    with pytest.raises(SpecError, match=r"spec\.resolved\.json: cannot be read"):
        resume_sweep(sweep)


def test_extensions_are_fields_by_short_names() -> None:
    assert extension(["trials=64", "hours=1.5"]) == {"search.num_trials": 64, "stop.hours": 1.5}
    with pytest.raises(SpecError) as caught:
        extension(["trials", "epochs=3"])
    assert len(caught.value.problems) == 2


def test_an_extension_is_checked_as_the_spec_is(spec: SweepSpec, tmp_path: Path) -> None:
    sweep = begun(tmp_path, spec)
    with pytest.raises(SpecError, match="num_trials"):
        resume_sweep(sweep, extend={"search.num_trials": yaml.safe_load("many")})
