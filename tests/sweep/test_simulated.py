"""`sweep --simulate`: what is refused, and an actor that reports from curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyds_tune.errors import SpecError
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.simulated import SimulatedActor, check_simulation, curves_for
from tests.simulation.landscapes import LOSS, MODELLED, RATE, curves, sweep_spec


@pytest.fixture
def landscape(tmp_path: Path) -> Path:
    path = tmp_path / "curves.yaml"
    path.write_text(yaml.safe_dump(MODELLED), encoding="utf-8")
    return path


def refused(spec: SweepSpec, path: Path) -> list[str]:
    with pytest.raises(SpecError) as raised:
        check_simulation(spec, path)
    return raised.value.problems


def spec_in(folder: Path, **changes: Any) -> SweepSpec:
    return sweep_spec(**{"output": {"folder": str(folder / "results")}} | changes)


def test_a_spec_that_fits_its_curves_needs_no_data(tmp_path: Path, landscape: Path) -> None:
    found = check_simulation(spec_in(tmp_path), landscape)
    assert found.train == []
    assert found.notes == [f"simulated: nothing was trained, the numbers come from {landscape}"]


def test_a_searched_field_that_the_curves_lack_is_noted(tmp_path: Path, landscape: Path) -> None:
    space = {RATE: MODELLED["space"][RATE], "algorithm.beta": {"low": 0.1, "high": 0.5}}
    notes = check_simulation(spec_in(tmp_path, search_space=space), landscape).notes
    assert notes[1:] == ["search_space: algorithm.beta changes nothing on these curves"]


def test_what_does_not_fit_the_curves_is_refused_together(tmp_path: Path, landscape: Path) -> None:
    space = MODELLED["space"] | {LOSS: ["sigmoid", "ipo"]}
    training = {"max_steps": 12, "eval_steps": 3}
    first, second = refused(spec_in(tmp_path, search_space=space, training=training), landscape)
    assert first.startswith("algorithm.loss_type: the curves know no 'ipo'")
    assert second.startswith("training.max_steps: must be at most 9, where the curves end, got 12")


def test_a_metric_that_curves_do_not_report_is_refused(tmp_path: Path, landscape: Path) -> None:
    spec = spec_in(tmp_path, objective={"metric": "eval/distinct_2", "mode": "max"})
    [problem] = refused(spec, landscape)
    assert problem.startswith("--simulate: eval/distinct_2 is not among what the curves report")


def test_a_budget_in_epochs_is_refused(tmp_path: Path, landscape: Path) -> None:
    spec = spec_in(tmp_path, training={"num_train_epochs": 1.0})
    assert refused(spec, landscape) == [
        "training.max_steps: must be given where curves stand in for training"
    ]


def test_a_file_without_curves_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({"trials": []}), encoding="utf-8")
    [problem] = refused(spec_in(tmp_path), path)
    assert "must hold learning curves" in problem


def test_an_actor_reports_and_goes_on_from_a_checkpoint() -> None:
    spec = sweep_spec(training={"max_steps": 9, "eval_steps": 4})
    found = curves_for(spec, curves().landscape)
    params = {RATE: 1e-3, LOSS: "hinge"}
    config = {"trial": "003", "params": params, "seed": None, "checkpoints": {}, "halvings": 0}
    actor = SimulatedActor.__new__(SimulatedActor)
    actor.setup(config, spec, found)
    first = actor.step()
    assert (first["global_step"], first["is_last"]) == (4, False)
    assert first["eval/reward"] == found.report(params, 4, spec.seed)["eval/reward"]
    assert first["checkpoint"] == "trials/003/checkpoints/step-000004"
    actor.reset_config({**config, "trial": "004"})
    assert actor.step()["global_step"] == 4
    actor.reset_config({**config, "checkpoints": {first["checkpoint"]: ""}})
    assert [actor.step()["global_step"] for _ in range(2)] == [8, 9]
    assert actor._step == 9
