"""A search space in Python, tried before anything starts and without Optuna."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.spec.check import spec_problems, sweep_problems
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.space_file import StandInTrial, draw
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
SPACE = """
def search_space(trial):
    rank = trial.suggest_categorical("model.lora_r", [8, 16])
    params = {"model.lora_r": rank, "model.lora_alpha": 2 * rank}
    if rank == 8:
        name = "training.learning_rate"
        params[name] = trial.suggest_float(name, 1e-5, 1e-3, log=True)
    return params
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / f"space{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_space_in_python_is_drawn_from(spec: Make, space_file: Callable[[str], str]) -> None:
    path = space_file(SPACE)
    sweep = spec(space_file=path)
    assert spec_problems(sweep) == sweep_problems(sweep) == []
    rng = random.Random(0)
    drawn = [draw(path, StandInTrial({}, rng)) for _ in range(50)]
    assert {params["model.lora_alpha"] for params in drawn} == {16, 32}
    assert all(("training.learning_rate" in p) == (p["model.lora_r"] == 8) for p in drawn)


def test_trial_zero_has_the_specs_own_values(spec: Make, space_file: Callable[[str], str]) -> None:
    path = space_file(SPACE)
    assert spec(space_file=path).default_params() == {"model.lora_r": 16, "model.lora_alpha": 32}
    rate = {"model.lora_r": 8, "model.lora_alpha": 32, "training.learning_rate": 1e-4}
    assert spec(space_file=path, **{"model.lora_r": 8}).default_params() == rate


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def search_space(trial):\n    return 1 / 0", ":2 raised ZeroDivisionError: division by"),
        ("def search_space(trial)", ":1 raised SyntaxError"),
        ("import sys\nsys.exit(3)", ":2 raised SystemExit: 3; correct it"),
        ("space = 1", "space_file: must define search_space(trial), and "),
        ("def search_space(trial): return 3", "must return a dict of dotted fields and values, "),
        ("def search_space(trial):\n    raise type('E', (Exception,), {'__str__': None})",
         ":2 raised space0.E: <exception str() failed>; correct it"),
        ("def search_space(t): return {'model.lora_r': (i for i in [1])}",
         "must return text, numbers, true, false, None and lists or dicts of these, got generator"),
        ("import numpy\ndef search_space(t): return {'model.lora_r': numpy.ones(2)}",
         "lists or dicts of these, got ndarray for 'model.lora_r'; return it as one of them"),
        ("def search_space(trial): return {}", "space_file: must ask the trial for a value, such"),
        ("def search_space(t): return {'training.learning_rate': t.suggest_float('lr', 0, 1)}",
         "must return each value under the name it was suggested as, and 'lr' is not returned so"),
        ("def search_space(t): return {'a.b': t.suggest_float('a.b', 0, 1)}",
         "space_file: a.b: is no field of the spec; what can be searched: algorithm."),
        ("def search_space(t): return {'model.lora_r': t.suggest_int('model.lora_r', -3, 0)}",
         "is refused: model.lora_r: must be at least 1"),
        ("def search_space(t): return {'model.lora_r': t.suggest_int('model.lora_r', 3, 1)}",
         "raised ValueError: model.lora_r: low <= high must hold, got 3 and 1"),
        ("def search_space(t): return {'training.max_steps': t.suggest_int('training.max_steps', "
         "1, 9)}", "training.max_steps: cannot be searched: the budget is the scheduler's to cut"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_space_is_refused_with_its_line(
    spec: Make, space_file: Callable[[str], str], text: str, problem: str
) -> None:
    [found] = spec_problems(spec(space_file=space_file(text)))
    assert found.startswith("space_file: ")
    assert problem in found


def test_there_is_one_space(spec: Make, space_file: Callable[[str], str]) -> None:
    both = spec({"model.lora_r": [4, 8]}, space_file=space_file(SPACE))
    assert spec_problems(both) == [
        "space_file: stands in place of search_space, got both; remove one of the two"
    ]
    [found] = spec_problems(spec(space_file="nowhere.py"))
    assert found.startswith("space_file: no such file: 'nowhere.py'")
    [found] = spec_problems(spec(space_file=space_file(SPACE), **{"search.sampler": "grid"}))
    assert found.startswith("search.sampler: a grid needs a search_space")


def test_a_space_file_may_stand_beside_its_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.py").write_text(SPACE, encoding="utf-8")
    (tmp_path / "rm.yaml").write_text(
        "{algorithm: {type: rm}, model: {model_name_or_path: someone/x}, data: {train: pairs}, "
        "training: {max_steps: 9}, space_file: space.py}",
        encoding="utf-8",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_sweep(str(tmp_path / "rm.yaml")).space_file == str(tmp_path / "space.py")


@pytest.mark.parametrize("log", [True, False])
def test_the_stand_in_draws_within_its_range(log: bool) -> None:
    rng = random.Random(0)
    trials = [StandInTrial({}, rng) for _ in range(200)]
    whole = {trial.suggest_int("n", 1, 4, log=log) for trial in trials}
    assert whole == {1, 2, 3, 4}
    assert all(0.1 <= trial.suggest_float("x", 0.1, 0.7, log=log) <= 0.7 for trial in trials)
    steps = {round(trial.suggest_float("y", 0, 1, step=0.3), 6) for trial in trials}
    assert steps == {0, 0.3, 0.6, 0.9}
    assert trials[0].suggest_int("n", 1, 4) == trials[0].suggest_int("n", 1, 4)
