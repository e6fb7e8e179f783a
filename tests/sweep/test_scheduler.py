"""Trials are compared at the rungs that the plan shows, and stopped with a reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from easyds_tune.spec.rungs import rungs
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.sweep.scheduler import JournalledASHA, make_scheduler
from tests.sweep.specs import SPACE, sweep_spec

FIXED_BATCH = {path: param for path, param in SPACE.items() if "accumulation" not in path}


class Race:
    """A scheduler under test with the decisions it told."""

    def __init__(self, spec: SweepSpec) -> None:
        self.decisions: list[tuple[str, int, str, str, str]] = []
        self.scheduler = make_scheduler(spec, None, lambda *what: self.decisions.append(what))
        self.trials: dict[str, Any] = {}

    def report(self, name: str, step: int, reward: float, **more: Any) -> str:
        if name not in self.trials:
            self.trials[name] = SimpleNamespace(trial_id=name, config={"trial": name})
            self.scheduler.on_trial_add(None, self.trials[name])
        result = {"global_step": step, "examples": 8 * step, "eval/reward": reward, **more}
        return self.scheduler.on_trial_result(None, self.trials[name], result)


def asha_rungs(scheduler: TrialScheduler) -> list[float]:
    assert isinstance(scheduler, JournalledASHA)
    return sorted(milestone for milestone, _ in scheduler._brackets[0]._rungs)


def test_the_worse_of_three_is_stopped_at_the_first_rung_and_told_why() -> None:
    race = Race(sweep_spec(FIXED_BATCH))
    assert race.report("a", 5, 1.0) == TrialScheduler.CONTINUE
    assert race.report("b", 5, 2.0) == TrialScheduler.CONTINUE
    assert race.report("c", 5, 0.5) == TrialScheduler.STOP
    ((trial, step, by, action, reason),) = race.decisions
    assert (trial, step, by, action) == ("c", 5, "asha", "stop")
    assert reason == "eval/reward 0.5 is not among the best 1/3 that reached this rung"


def test_the_default_configuration_is_never_stopped_but_counts_at_its_rungs() -> None:
    race = Race(sweep_spec(FIXED_BATCH))
    race.report("a", 5, 1.0)
    race.report("b", 5, 2.0)
    assert race.report("000", 5, 0.5) == TrialScheduler.CONTINUE
    assert race.decisions == []
    assert race.report("c", 5, 0.7) == TrialScheduler.STOP


def test_nothing_is_stopped_between_rungs() -> None:
    race = Race(sweep_spec(FIXED_BATCH))
    for name, reward in (("a", 3.0), ("b", 2.0), ("c", 1.0)):
        race.report(name, 15, reward)
    assert race.report("a", 20, -9.0) == TrialScheduler.CONTINUE


def test_a_trial_that_diverged_without_a_metric_is_no_trouble() -> None:
    race = Race(sweep_spec(FIXED_BATCH))
    race.report("a", 5, 1.0)
    failed = {"done": True, "failure": {"state": "DIVERGED"}}
    scheduler, trial = race.scheduler, race.trials["a"]
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, failed)


@pytest.mark.parametrize(
    ("space", "scheduler", "wanted"),
    [
        (FIXED_BATCH, {}, [5, 15]),
        (FIXED_BATCH, {"reduction_factor": 2}, [5, 10, 20]),
        (FIXED_BATCH, {"grace_period": 10}, [10]),
        (SPACE, {}, [40, 120]),  # the batch is searched: rungs in examples, 8 a step
        (SPACE, {"reduction_factor": 2}, [40, 80, 160]),
    ],
)
def test_the_rungs_are_the_ones_of_the_plan(
    space: dict[str, Any], scheduler: dict[str, Any], wanted: list[int]
) -> None:
    spec = sweep_spec(space, scheduler=scheduler)
    assert rungs(spec) == wanted
    assert asha_rungs(Race(spec).scheduler) == wanted


@pytest.mark.parametrize("factor", [2.5, 2.2, 3.7])
def test_a_fractional_factor_loses_no_rung(factor: float) -> None:
    spec = sweep_spec(scheduler={"reduction_factor": factor, "grace_period": 1})
    assert len(asha_rungs(Race(spec).scheduler)) == len(rungs(spec))


@pytest.mark.parametrize("scheduler", [{"type": "none"}, {"grace_period": 30}])
def test_without_rungs_every_trial_runs_to_its_end(scheduler: dict[str, Any]) -> None:
    race = Race(sweep_spec(FIXED_BATCH, scheduler=scheduler))
    assert type(race.scheduler) is FIFOScheduler


def test_a_searched_batch_keeps_the_examples_of_a_trial() -> None:
    """30 steps of 8 are 240 examples: 15 steps of 16, 8 of 32 (7.5 rounded).

    The rung at 40 examples is never missed by a little: 3 steps of 16 are 48, 2 of 32 are 64.
    """
    spec = sweep_spec()
    path = "training.gradient_accumulation_steps"
    budgets = {n: trial_spec(spec, "0", {path: n}).budget for n in (1, 2, 4)}
    assert {n: budget.max_steps for n, budget in budgets.items()} == {1: 30, 2: 15, 4: 8}
    assert {n: budget.eval_steps for n, budget in budgets.items()} == {1: 5, 2: 3, 4: 2}
    assert spec.time_attr == "examples"
