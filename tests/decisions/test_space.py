"""The space as Optuna sees it: conditions, grids, and define-by-run files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from easyds_tune.decisions.space import FileSpace, SpecSpace, open_space
from easyds_tune.decisions.suggest import Suggester
from easyds_tune.errors import SpecError
from easyds_tune.spec.sweep import SweepSpec
from tests.decisions.histories import (
    BETA,
    CONDITIONAL,
    LEARNING_RATE,
    LOSS,
    RANK,
    SMOOTHING,
    SPACE,
    History,
    a_spec,
    live_through,
)

FILE = f'''
def search_space(trial):
    loss = trial.suggest_categorical("{LOSS}", ["sigmoid", "exo_pair"])
    rate = trial.suggest_float("{LEARNING_RATE}", 1e-5, 1e-3, log=True)
    params = {{"{LOSS}": loss, "{LEARNING_RATE}": rate}}
    if loss == "exo_pair":
        params["{SMOOTHING}"] = trial.suggest_float("{SMOOTHING}", 0.01, 0.3)
    params["{RANK}"] = 4 if rate > 1e-4 else 8
    return params
'''


def file_spec(folder: Path, source: str, **changes: Any) -> SweepSpec:
    path = folder / "my_space.py"
    path.write_text(source)
    return a_spec({}, space_file=str(path), **changes)


def test_a_configuration_is_placed_by_position_without_what_does_not_hold() -> None:
    space = SpecSpace(a_spec(CONDITIONAL))
    placed = space.place({LEARNING_RATE: 1e-4, LOSS: "sigmoid", SMOOTHING: 0.1})
    assert placed is not None
    assert placed.params == {LEARNING_RATE: 1e-4, LOSS: 0}
    assert placed.distributions.keys() == placed.params.keys()
    assert space.place({LEARNING_RATE: 1e-4, LOSS: "exo_pair"}) is None
    assert space.complete({LOSS: "exo_pair", SMOOTHING: 0.2}) == {
        LEARNING_RATE: 1e-4, SMOOTHING: 0.2, LOSS: "exo_pair",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "inside"),
    [
        ({BETA: {"low": 0.05, "high": 0.5}}, True),
        ({BETA: {"low": 0.2, "high": 0.5}}, False),
        ({BETA: {"low": 0.05, "high": 0.3, "step": 0.05}}, True),
        ({BETA: {"low": 0.05, "high": 0.45, "step": 0.2}}, False),
        ({RANK: [4, 8]}, True),
        ({RANK: [16, 32]}, False),
        ({RANK: {"low": 2, "high": 16, "step": 3}}, True),
        ({RANK: {"low": 6, "high": 16, "step": 5}}, False),
        ({"training.max_grad_norm": [1, 2]}, True),
        ({"training.warmup_steps": {"type": "int", "low": 1, "high": 10}}, False),
    ],
)
def test_whether_the_default_lies_in_the_space(space: dict[str, Any], inside: bool) -> None:
    spec = a_spec(space)
    assert (SpecSpace(spec).place(spec.default_params()) is not None) == inside
    assert SpecSpace(spec).outside(spec.default_params()) == ([] if inside else list(space))


def test_a_file_draws_what_it_asks_for(tmp_path: Path) -> None:
    spec = file_spec(tmp_path, FILE, num_trials=20)
    _, proposed = live_through(spec, seed=2)
    assert {params[LOSS] for params in proposed} == {"sigmoid", "exo_pair"}
    for params in proposed:
        assert (SMOOTHING in params) == (params[LOSS] == "exo_pair")
        assert params[RANK] == (4 if params[LEARNING_RATE] > 1e-4 else 8)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "cmaes", "nsga2", "qmc"])
def test_a_file_is_searched_by_every_sampler(tmp_path: Path, sampler: str) -> None:
    num_trials = 4 if sampler == "gp" else 12
    spec = file_spec(tmp_path, FILE, num_trials=num_trials, sampler=sampler, startup_trials=2)
    assert live_through(spec)[1] == live_through(spec, forgetful=True)[1]


def test_a_file_places_what_it_drew_and_completes_a_point(tmp_path: Path) -> None:
    space = open_space(file_spec(tmp_path, FILE))
    default = {LOSS: "sigmoid", LEARNING_RATE: 1e-4, RANK: 8}
    assert space.complete({}) == default
    assert space.complete({LOSS: "exo_pair", SMOOTHING: 0.1})[SMOOTHING] == 0.1
    placed = space.place(default)
    assert placed is not None
    assert placed.params == {LOSS: "sigmoid", LEARNING_RATE: 1e-4}
    assert space.place({**default, LEARNING_RATE: 1.0}) is None
    assert space.place({LOSS: "sigmoid"}) is None
    assert space.outside({**default, LEARNING_RATE: 1.0}) == [LEARNING_RATE, RANK]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def search_space(trial:\n", "my_space.py:1 raised SyntaxError"),
        ("x = 1\nimport not_there\n", "my_space.py:2 raised ModuleNotFoundError"),
        ("search = 1\n", "must define search_space(trial)"),
        ("def search_space(trial):\n    a = 1\n    return a / 0\n", "my_space.py:3 raised ZeroDi"),
        ("def search_space(trial):\n    return [1]\n", "must return a dict"),
        (f"def search_space(trial):\n    trial.suggest_float('{BETA}', 0, 1)\n    return {{}}\n",
         f"'{BETA}' is not returned so"),
        (f"def search_space(trial):\n    return trial.suggest_float('{BETA}', 1, 0)\n",
         "my_space.py:2 raised ValueError"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_named_with_its_line(
    tmp_path: Path, source: str, message: str
) -> None:
    spec = file_spec(tmp_path, source)
    with pytest.raises(SpecError) as caught:
        Suggester(spec).suggest(1, History(spec).record)
    assert message in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        FileSpace(a_spec({}, space_file=str(tmp_path / "none.py")))


def test_a_grid_needs_values_that_can_be_counted(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        Suggester(a_spec(SPACE, sampler="grid"))
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [LEARNING_RATE, BETA]
    with pytest.raises(SpecError, match="grid needs search_space"):
        Suggester(file_spec(tmp_path, FILE, sampler="grid"))


def test_an_upper_end_off_the_grid_is_lowered_without_a_word(recwarn: Any) -> None:
    space = SpecSpace(a_spec({BETA: {"low": 0.0, "high": 0.52, "step": 0.1}}))
    space.draw(optuna.create_study().ask())
    assert not recwarn.list
