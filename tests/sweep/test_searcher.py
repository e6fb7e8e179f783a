"""The searcher proposes, learns from what trials report, and tells Optuna how they ended."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.searcher import OptunaSearcher
from tests.sweep.specs import sweep_spec


class Search:
    """A searcher under test, and what it told about its suggestions."""

    def __init__(self, spec: SweepSpec) -> None:
        self.told: list[tuple[str, int, dict[str, Any], str]] = []
        self.searcher = OptunaSearcher(spec, lambda *what: self.told.append(what))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return self.searcher.suggest(trial_id)["params"]

    def report(self, trial_id: str, step: int, reward: float) -> None:
        self.searcher.on_trial_result(trial_id, result(step, reward))

    def end(self, trial_id: str, step: int, reward: float, *, is_last: bool = True) -> None:
        self.searcher.on_trial_complete(trial_id, result(step, reward, is_last=is_last))

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.searcher._study.trials


def result(step: int, reward: float, *, is_last: bool = False) -> dict[str, Any]:
    return {"global_step": step, "eval/reward": reward, "is_last": is_last}


def suggestions(spec: SweepSpec) -> list[dict[str, Any]]:
    """All suggestions of a sweep whose reward is highest at a learning rate of 1e-4."""
    search = Search(spec)
    for number in range(spec.search.num_trials):
        params = search.suggest(f"ray-{number}")
        reward = -abs(math.log10(params["training.learning_rate"]) + 4)
        search.end(f"ray-{number}", 30, reward)
    return [params for _, _, params, _ in search.told]


def test_trial_0_is_the_default_configuration() -> None:
    search = Search(sweep_spec())
    wanted = {
        "training.learning_rate": 1e-4,
        "algorithm.beta": 0.1,
        "model.lora_r": 8,
        "training.gradient_accumulation_steps": 1,
    }
    assert search.searcher.suggest("ray-a") == {"trial": "000", "params": wanted}
    search.suggest("ray-b")
    assert search.told[0] == ("ray-a", 0, wanted, "default")
    assert search.told[1][0::3] == ("ray-b", "sampler")


def test_the_search_ends_after_its_trials() -> None:
    search = Search(sweep_spec(search={"num_trials": 2}))
    search.suggest("a")
    search.suggest("b")
    assert search.searcher.suggest("c") == Searcher.FINISHED
    assert len(search.told) == 2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_seed_fixes_the_suggestions(sampler: str) -> None:
    spec = sweep_spec(search={"sampler": sampler})
    assert suggestions(spec) == suggestions(spec)
    other = spec.model_copy(update={"seed": 1})
    assert suggestions(other)[1:] != suggestions(spec)[1:]


def test_suggestions_stay_inside_the_space_and_keep_their_types() -> None:
    for params in suggestions(sweep_spec(search={"num_trials": 20})):
        assert 1e-5 <= params["training.learning_rate"] <= 1e-3
        assert 0.05 <= params["algorithm.beta"] <= 0.5
        assert params["model.lora_r"] in (4, 8, 16)
        assert type(params["training.gradient_accumulation_steps"]) is int


def test_tpe_finds_the_better_half_more_often_than_chance() -> None:
    late = suggestions(sweep_spec(search={"num_trials": 40, "startup_trials": 5}))[20:]
    near = [p for p in late if abs(math.log10(p["training.learning_rate"]) + 4) < 0.5]
    assert len(near) >= 15  # half the space, so ten by chance


def test_a_finished_trial_counts_with_the_best_it_reported() -> None:
    search = Search(sweep_spec())
    search.suggest("default")
    search.suggest("a")
    for step, reward in ((5, 1.0), (10, 3.0)):
        search.report("a", step, reward)
    search.end("a", 30, 2.0)
    (trial,) = search.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 3.0)
    assert trial.intermediate_values == {5: 1.0, 10: 3.0, 30: 2.0}


def test_a_loss_counts_with_its_lowest() -> None:
    search = Search(sweep_spec(objective={"metric": "eval/kl", "mode": "min"}))
    search.suggest("default")
    search.suggest("a")
    search.searcher.on_trial_result("a", {"global_step": 5, "eval/kl": 0.2})
    search.searcher.on_trial_complete("a", {"global_step": 9, "eval/kl": 0.4, "is_last": True})
    assert search.trials[0].value == 0.2


def test_a_pruned_trial_is_told_as_pruned_at_its_step() -> None:
    search = Search(sweep_spec())
    search.suggest("default")
    search.suggest("a")
    search.report("a", 5, 1.0)
    search.end("a", 10, 0.5, is_last=False)
    (trial,) = search.trials
    assert (trial.state, trial.last_step) == (TrialState.PRUNED, 10)


@pytest.mark.parametrize("reported", [True, False])
def test_a_diverged_trial_is_told_as_failed(reported: bool) -> None:
    search = Search(sweep_spec())
    search.suggest("default")
    search.suggest("a")
    if reported:
        search.report("a", 5, 1.0)
    failure = {"state": "DIVERGED", "type": "DivergedError", "message": "", "traceback": ""}
    search.searcher.on_trial_complete("a", {"done": True, "failure": failure})
    (trial,) = search.trials
    assert trial.state == TrialState.FAIL


def test_a_trial_that_raised_is_told_as_failed() -> None:
    search = Search(sweep_spec())
    search.suggest("default")
    search.suggest("a")
    search.report("a", 5, 1.0)
    search.searcher.on_trial_complete("a", error=True)
    assert search.trials[0].state == TrialState.FAIL


def test_the_sampler_learns_from_the_default_too() -> None:
    search = Search(sweep_spec())
    search.suggest("default")
    search.report("default", 5, 1.0)
    search.end("default", 30, 0.5)
    (trial,) = search.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 1.0)
    assert trial.params["model.lora_r"] == 1  # the position of 8
    assert trial.params["training.learning_rate"] == 1e-4


def test_a_pruned_default_is_told_as_pruned_and_a_diverged_one_not_at_all() -> None:
    search = Search(sweep_spec())
    search.suggest("default")
    search.end("default", 5, 0.5, is_last=False)
    assert search.trials[0].state == TrialState.PRUNED

    search = Search(sweep_spec())
    search.suggest("default")
    search.report("default", 5, 0.5)
    search.searcher.on_trial_complete("default", {"done": True, "failure": {}})
    assert [trial for trial in search.trials if trial.state != TrialState.FAIL] == []


@pytest.mark.parametrize(
    "outside",
    [
        {"algorithm.beta": {"low": 0.2, "high": 0.5}},
        {"algorithm.beta": {"low": 0.05, "high": 0.45, "step": 0.2}},
        {"model.lora_r": [16, 32]},
        {"model.lora_r": {"low": 6, "high": 16, "step": 5}},
        {"training.warmup_steps": {"type": "int", "low": 1, "high": 10}},
    ],
)
def test_a_default_outside_the_space_runs_but_teaches_nothing(outside: dict[str, Any]) -> None:
    search = Search(sweep_spec(outside))
    search.suggest("default")
    search.end("default", 30, 0.5)
    assert search.trials == []
    search.suggest("a")
    search.end("a", 30, 0.7)
    assert search.trials[0].state == TrialState.COMPLETE


def test_a_default_on_the_grid_is_learnt() -> None:
    search = Search(sweep_spec({"algorithm.beta": {"low": 0.05, "high": 0.3, "step": 0.05}}))
    search.suggest("default")
    search.end("default", 30, 0.5)
    assert search.trials[0].params == {"algorithm.beta": 0.1}


def test_an_empty_space_repeats_the_default() -> None:
    search = Search(sweep_spec({}))
    assert search.suggest("a") == search.suggest("b") == {}
