"""Who enters the finals, and that finals of checkpoints with known truth tell the truth."""

from __future__ import annotations

import numpy as np
import pytest

from easyds_tune.decisions.finals import (
    choose_finalists,
    retrained_finalists,
    retrainings,
)
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import TrialState
from easyds_tune.results.finals import settle
from tests.results.judged import JudgedSweep, Truth, measure, summary

LIMIT = Bound("eval/kl", max=0.2)


def row(reward: float, kl: float = 0.1, kl_stderr: float = 0.01) -> dict[str, float]:
    return {"eval/reward": reward, "eval/kl": kl, "eval/kl_stderr": kl_stderr}


def test_checkpoints_of_any_step_enter_at_most_two_of_a_trial() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.1), 20: row(0.2)})
    sweep.trial({10: row(0.7), 20: row(0.9), 30: row(0.8)})
    sweep.trial({10: row(0.6)}, TrialState.PRUNED)
    assert choose_finalists(sweep.record, 4) == [("001", 20), ("001", 30), ("002", 10), ("000", 20)]
    assert choose_finalists(sweep.record, 1) == [("001", 20), ("000", 20)]


def test_lower_is_better_where_the_objective_says_so() -> None:
    sweep = JudgedSweep(mode="min")
    for reward in (0.5, 0.1, 0.3):
        sweep.trial({10: row(reward)})
    assert choose_finalists(sweep.record, 2) == [("001", 10), ("002", 10), ("000", 10)]


def test_those_surely_inside_the_bounds_come_before_those_that_may_be_lucky() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.1)})
    sweep.trial({10: row(0.9, kl=0.195)})  # up to 0.215
    sweep.trial({10: row(0.5, kl=0.17)})  # up to 0.190
    sweep.trial({10: row(2.0, kl=0.21)})  # outside
    sweep.trial({10: row(3.0, kl=float("nan"))})
    assert choose_finalists(sweep.record, 4) == [("002", 10), ("000", 10), ("001", 10)]


def test_a_stopped_trial_enters_with_what_it_was_before_a_failed_one_does_not() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.1)})
    sweep.trial({10: row(0.8), 20: row(1.5, kl=0.4)}, TrialState.BOUNDED)
    sweep.trial({10: row(0.9)}, TrialState.DIVERGED)
    assert choose_finalists(sweep.record, 3) == [("001", 10), ("000", 10)]


def test_the_default_is_judged_though_it_is_outside_and_no_finals_are_held_for_it_alone() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.1, kl=0.5), 20: row(0.9, kl=0.6)})
    assert choose_finalists(sweep.record, 3) == []
    sweep.trial({10: row(0.5)})
    assert choose_finalists(sweep.record, 3) == [("001", 10), ("000", 10)]


def test_finalists_are_trained_again_once_a_configuration_and_seed() -> None:
    sweep = JudgedSweep()
    sweep.trial({10: row(0.1)}, params={"lr": 1.0})
    sweep.trial({10: row(0.9), 20: row(0.8)}, params={"lr": 2.0})
    finalists = choose_finalists(sweep.record, 2)
    wanted = retrainings(sweep.record, finalists, seeds=2, seed=7)
    assert [(r.params["lr"], r.seed) for r in wanted] == [(2.0, 8), (2.0, 9), (1.0, 8), (1.0, 9)]

    sweep.trial({10: row(5.0), 20: row(5.0)}, params={"lr": 2.0}, source="finals", seed=8)
    sweep.trial({10: row(5.0), 20: row(5.0)}, params={"lr": 1.0}, source="finals", seed=8)
    again = retrainings(sweep.record, finalists, seeds=2, seed=7)
    assert [(r.params["lr"], r.seed) for r in again] == [(2.0, 9), (1.0, 9)]
    # They are no candidates of their own, and judged at the finalists' steps, whatever they scored.
    assert choose_finalists(sweep.record, 2) == finalists
    assert finalists == [("001", 10), ("001", 20), ("000", 10)]
    assert retrained_finalists(sweep.record, finalists) == [("002", 10), ("002", 20), ("003", 10)]


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("prompts", [64, 128])
def test_the_winners_interval_covers_its_true_value_and_its_kl_is_truly_inside(
    prompts: int, skewed: bool
) -> None:
    """16 trials whose reward and KL rise together; the search's 64 prompts, then the finals'."""
    rng = np.random.default_rng(prompts + skewed)
    runs, covered, covered_gap, outside, lucky = 300, 0, 0, 0, 0
    for _ in range(runs):
        sweep = JudgedSweep(LIMIT)
        truths: dict[str, Truth] = {}
        easy = rng.normal(0, 0.5, 64)
        for _ in range(16):
            kl = float(rng.uniform(0.05, 0.3))
            truth = Truth(float(2 * kl + rng.normal(0, 0.1)), kl)
            truths[sweep.trial({40: summary(*measure(rng, easy, truth, 0.5, skewed))})] = truth
        fresh = rng.exponential(0.5, prompts) - 0.5 if skewed else rng.normal(0, 0.5, prompts)
        for trial, step in choose_finalists(sweep.record, 5):
            sweep.judged(trial, step, *measure(rng, fresh, truths[trial], 0.5, skewed))
        settled = settle(sweep.record)
        assert settled is not None
        winner = settled.winner
        assert winner is not None
        truth = truths[winner.trial.id]
        covered += winner.reported.low <= truth.reward <= winner.reported.high
        outside += truth.kl > 0.2
        gap = settled.over_default
        true_gap = truth.reward - truths["000"].reward
        covered_gap += gap is None or gap.low <= true_gap <= gap.high
        by_points = max(
            (trial.reports[0].metrics["eval/reward"], name)
            for name, trial in sweep.record.trials.items()
            if trial.reports[0].metrics["eval/kl"] <= 0.2
        )
        lucky += truths[by_points[1]].kl > 0.2
    assert 0.90 <= covered / runs <= 0.99
    assert 0.90 <= covered_gap / runs <= 0.99
    assert outside / runs <= 0.02
    assert lucky / runs > 0.10  # what choosing by the search's own numbers gives
