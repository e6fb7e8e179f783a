from __future__ import annotations

import math
from array import array
from typing import Any

import pytest

from easyds_tune.decisions.guard import inspect
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import Objective, TrialState
from easyds_tune.journal.replay import Report, TrialRecord

REWARD = (Objective("eval/reward", "max"),)
KL = Bound("eval/kl", max=0.2)


def trial(*rows: dict[str, float]) -> TrialRecord:
    """A trial with a report every ten steps."""
    reports = [
        Report(10 * (place + 1), 0.0, tuple(row), array("d", row.values()))
        for place, row in enumerate(rows)
    ]
    return TrialRecord("001", 1, {}, "sampler", 0.0, reports=reports)


def row(kl: float, **more: Any) -> dict[str, float]:
    return {"eval/reward": 1.0, "eval/kl": kl, **more}


def test_a_report_inside_all_bounds_is_no_finding() -> None:
    assert inspect(trial(row(0.1)), REWARD, (KL,)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_objective_that_is_no_number_diverged(value: float) -> None:
    found = inspect(trial({"eval/reward": value}), REWARD, ())
    assert found is not None
    assert found.state is TrialState.DIVERGED
    assert found.reason == f"eval/reward is {value} at step 10"


def test_an_objective_that_is_missing_diverged() -> None:
    found = inspect(trial({"train/loss": 1.0}), REWARD, ())
    assert found is not None
    assert (found.state, found.reason) == (
        TrialState.DIVERGED, "eval/reward is missing at step 10",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["train/loss", "train/grad_norm"])
def test_a_loss_that_is_no_number_diverged_before_any_bound(name: str) -> None:
    found = inspect(trial(row(0.5, **{name: math.nan})), REWARD, (KL,))
    assert found is not None
    assert found.state is TrialState.DIVERGED


def test_a_broken_hard_bound_says_on_which_number() -> None:
    found = inspect(trial(row(0.25)), REWARD, (KL,))
    assert found is not None
    assert (found.state, found.reason) == (
        TrialState.BOUNDED, "eval/kl is 0.25, must be at most 0.2",
    )  # fmt: skip


@pytest.mark.parametrize("metrics", [{"eval/reward": 1.0}, row(math.nan)])
def test_a_bounded_metric_that_is_missing_or_no_number_is_broken(
    metrics: dict[str, float],
) -> None:
    found = inspect(trial(metrics), REWARD, (KL,))
    assert found is not None
    assert found.state is TrialState.BOUNDED


def test_a_soft_bound_lets_the_trial_go_on() -> None:
    found = inspect(trial(row(0.25)), REWARD, (Bound("eval/kl", max=0.2, hard=False),))
    assert found is not None
    assert found.state is None


def test_a_hard_bound_comes_before_a_soft_one() -> None:
    bounds = (Bound("eval/kl", max=0.1, hard=False), KL)
    found = inspect(trial(row(0.25)), REWARD, bounds)
    assert found is not None
    assert found.state is TrialState.BOUNDED


def test_patience_counts_reports_in_a_row() -> None:
    patient = (Bound("eval/kl", max=0.2, patience=2),)
    assert inspect(trial(row(0.3)), REWARD, patient) is None
    assert inspect(trial(row(0.3), row(0.1), row(0.3)), REWARD, patient) is None
    found = inspect(trial(row(0.1), row(0.3), row(0.3)), REWARD, patient)
    assert found is not None
    assert found.reason.endswith("2 reports in a row")


def test_a_lower_bound_is_held_from_its_step_on() -> None:
    learning = (Bound("eval/kl", min=0.05, from_step=20),)
    assert inspect(trial(row(0.0)), REWARD, learning) is None
    assert inspect(trial(row(0.0), row(0.0)), REWARD, learning) is not None


def test_patience_does_not_count_reports_before_the_bounds_step() -> None:
    learning = (Bound("eval/kl", min=0.05, from_step=20, patience=2),)
    assert inspect(trial(row(0.0), row(0.0)), REWARD, learning) is None
    assert inspect(trial(row(0.0), row(0.0), row(0.0)), REWARD, learning) is not None
