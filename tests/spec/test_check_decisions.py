from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.spec.check import spec_problems, sweep_problems
from easyds_tune.spec.check_decisions import earlier_sweep
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
RANK, ALPHA, RATE = "model.lora_r", "model.lora_alpha", "training.learning_rate"
SPACE = {RANK: [8, 16], ALPHA: {"low": 8, "high": 32, "when": {RANK: 16}}}


def test_a_field_that_is_not_searched_in_trial_zero_is_left_out(spec: Make) -> None:
    assert spec(SPACE).default_params() == {RANK: 16, ALPHA: 32}
    assert spec(SPACE, **{RANK: 8}).default_params() == {RANK: 8}
    assert spec_problems(spec(SPACE)) == []


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ({RANK: [8, 16], ALPHA: {"choice": [8, 9], "when": {"model.lora_rr": 8}}},
         f"search_space.{ALPHA}.when: must name searched fields, and model.lora_rr is none; did "
         f"you mean {RANK}?"),
        ({RANK: [8, 16], ALPHA: {"choice": [8, 9], "when": {RANK: [8, 9]}}},
         f"search_space.{ALPHA}.when: {RANK} never is 9; name a value that it takes, one of [8"),
        ({RANK: [8, 16], ALPHA: {"choice": [8, 9], "when": {RANK: []}}},
         f"search_space.{ALPHA}.when: must give {RANK} a value, got an empty list"),
        ({RATE: {"low": 0.1, "high": 0.2}, RANK: {"choice": [8, 16], "when": {RATE: 0.1}}},
         f"search_space.{RANK}.when: {RATE} is a range without steps, which never meets a value"),
        ({RANK: {"choice": [8, 9], "when": {ALPHA: 8}}, ALPHA: {"choice": [8], "when": {RANK: 8}}},
         f"search_space.{RANK}.when: must not lead back to itself, got {RANK} and {ALPHA} in a"),
        ({RANK: {"choice": [8, 9], "when": {RANK: 8}}},
         f"search_space.{RANK}.when: must not lead back to itself, got {RANK} in a circle"),
        ({RANK: [8, 16], ALPHA: {"choice": [8, 9], "when": {RANK: 8}},
          RATE: {"low": 0.1, "high": 0.2, "when": {RANK: 16, ALPHA: 8}}},
         f"search_space.{RATE}.when: can never hold, for what it names asks for other values of "
         f"{RANK}"),
    ],
)  # fmt: skip
def test_a_condition_that_can_never_hold_is_refused(
    spec: Make, space: dict[str, Any], problem: str
) -> None:
    [found] = spec_problems(spec(space))
    assert found.startswith(problem)


def test_a_value_is_tried_where_it_is_searched(spec: Make) -> None:
    space = {RANK: [8, 16], ALPHA: {"choice": [0, 8], "when": {RANK: 16}}}
    [found] = spec_problems(spec(space))
    assert found.startswith(f"search_space.{ALPHA}: the value 0 is refused")


@pytest.mark.parametrize(
    ("sampler", "space", "problem"),
    [
        ("grid", {RANK: [8, 16], RATE: {"low": 0.1, "high": 0.2}},
         f"search_space.{RATE}: must be a list or have a step for the grid sampler"),
        ("grid", {RANK: {"low": 1, "high": 1000}, ALPHA: {"low": 1, "high": 1000}},
         "search.sampler: a grid must have at most 100000 combinations, and search_space has more"),
        ("cmaes", {RANK: [8, 16]}, "search.sampler: cmaes moves through numbers, and search_space"),
    ],
)  # fmt: skip
def test_a_space_that_a_sampler_cannot_go_through_is_refused(
    spec: Make, sampler: str, space: dict[str, Any], problem: str
) -> None:
    [found] = spec_problems(spec(space, **{"search.sampler": sampler}))
    assert found.startswith(problem)


def test_a_grid_has_so_many_trials(spec: Make) -> None:
    space = {RANK: [8, 16], RATE: {"low": 0.1, "high": 0.2, "step": 0.05}}
    # 2 × 3, and the default's rate of 1e-4 lies outside: one more.
    fields = {"search.sampler": "grid", "search.num_trials": 7}
    assert sweep_problems(spec(space, **fields)) == []
    [found] = sweep_problems(spec(space, **(fields | {"search.num_trials": 8})))
    assert found.startswith("search.num_trials: must be at most 7")


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([{RANK: 4}], f"search.points.0.{RANK}: must lie in search_space, one of [8, 16], got 4"),
        ([{ALPHA: 33}],
         f"search.points.0.{ALPHA}: must lie in search_space, a whole number from 8 to 32, got 33"),
        ([{RANK: 16, ALPHA: 9.5}], "a whole number from 8 to 32, got 9.5"),
        ([{"model.lora_rr": 4}],
         f"search.points.0.model.lora_rr: is not searched; did you mean {RANK}?"),
        ([{RANK: 8, ALPHA: 9}], f"search.points.0.{ALPHA}: has no effect there, its `when` does not"
         f" hold; remove it, or give {RANK} the value it needs"),
        ([{}], "search.points.0: must differ from the others, and is trial 0, the default config"),
        ([{RANK: 8}, {ALPHA: 9}, {RANK: 8}],
         "search.points.2: must differ from the others, and is search.points.0; remove it"),
        ([{RANK: 8}, {ALPHA: 8}, {ALPHA: 9}, {ALPHA: 10}],
         "search.points: must be fewer than num_trials, of which trial 0 is the default configurati"
         "on, got 4 points and 4 trials; set num_trials: 5 or more"),
    ],
)  # fmt: skip
def test_a_point_that_a_search_could_not_propose_is_refused(
    spec: Make, points: list[dict[str, Any]], problem: str
) -> None:
    search = {"points": points, "num_trials": 4}
    [found] = spec_problems(spec(SPACE, search=search))
    assert problem in found


def test_the_values_of_a_point_fit_together(ppo: Make) -> None:
    space = {"algorithm.advantage_estimator": ["gae", "rloo"],
             "algorithm.num_generations": {
                 "choice": [2, 4], "when": {"algorithm.advantage_estimator": "rloo"}}}  # fmt: skip
    rloo = {"algorithm.advantage_estimator": "rloo"}
    sound = {"search.points": [rloo | {"algorithm.num_generations": 4}]}
    assert spec_problems(ppo(space, **sound)) == []
    [found] = spec_problems(ppo(space, **{"search.points": [rloo]}))
    assert found.startswith("search.points.0: algorithm.num_generations: must be at least 2 for")


def test_a_point_whose_own_values_are_refused_is_told_in_words(ppo: Make) -> None:
    space = {"algorithm.kl_coef": [0.05, None]}
    found = spec_problems(ppo(space, **{"search.points": [{"algorithm.kl_coef": None}]}))
    assert "search.points.0: algorithm.kl_coef: must be a number, got null" in found


def test_a_space_with_countless_conditions_is_counted_at_once(ppo: Make) -> None:
    """Each value of each field was gone through: 13 such fields took hours."""
    fields = ["gamma", "lam", "value_learning_rate", "cliprange", "cliprange_value", "entropy_coef"]
    space: dict[str, Any] = {f"algorithm.{name}": [0.1, 0.2, 0.3, 0.4, 0.5] for name in fields}
    space |= {RATE: {"choice": [1e-4, 1e-3], "when": {path: [0.1, 0.2] for path in space}}}
    [found] = spec_problems(ppo(space | {ALPHA: list(range(1, 9))}, **{"search.sampler": "grid"}))
    assert "must have at most 100000 combinations, and search_space has more" in found


def test_points_may_leave_fields_to_the_default(spec: Make) -> None:
    search = {"points": [{RANK: 8}, {ALPHA: 9}], "num_trials": 4}
    assert spec_problems(spec(SPACE, search=search)) == []


def test_points_come_from_a_sweep_by_its_name_or_its_folder(
    spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "first"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").touch()
    for name in ("first", str(folder), "results/first"):
        sweep = spec(SPACE, search={"points_from": name})
        assert spec_problems(sweep) == []
        found = earlier_sweep(sweep)
        assert found is not None
        assert found.resolve() == folder
    assert spec_problems(spec(SPACE, search={"points_from": "frist"})) == [
        "search.points_from: no journal.jsonl in results/frist or frist; did you mean first?"
    ]


def test_finals_on_prompts_need_a_judge(spec: Make) -> None:
    [found] = spec_problems(spec(finals={"prompts": "others"}))
    assert found.startswith("finals.prompts: need a judge, which asks them, and there is none")
    assert spec_problems(spec(finals={"top": 2})) == []


def test_several_objectives_have_no_finals_to_train_for(spec: Make) -> None:
    both = [{"metric": "eval/accuracy"}, {"metric": "time/train_seconds"}]
    fields = {"objective": both, "scheduler.type": "auto", "finals": {"seeds": 2}}
    found = [problem for problem in spec_problems(spec(**fields)) if "finals" in problem]
    assert found == [
        "finals.seeds: must be 0 with several objectives, which have a front and no finals, got 2; "
        "remove it, or search for one objective"
    ]
