"""One half of the finals' prompts picks, the other reports; noise cannot talk a bound away."""

from __future__ import annotations

import math

import pytest

from easyds_tune.journal.bounds import Bound
from easyds_tune.results.finals import broken_bounds, find_best, settle
from tests.results.judged import JudgedSweep

WAVE = [0.1 * math.sin(n) for n in range(64)]


def rewards(picking: float, reporting: float) -> list[float]:
    """64 prompts: those of even index around one number, those of odd index around another."""
    return [noise + (reporting if n % 2 else picking) for n, noise in enumerate(WAVE)]


def nats(kl: float, spread: float = 0.2) -> dict[str, list[float]]:
    return {"eval/kl": [20 * kl * (1 + spread * math.cos(5 * n)) for n in range(64)]}


TOKENS = {"eval/kl": [20.0] * 64}


def report(reward: float, **metrics: float) -> dict[int, dict[str, float]]:
    return {40: {"eval/reward": reward, "eval/reward_stderr": 0.05, **metrics}}


def test_the_picking_half_picks_and_the_reporting_half_reports() -> None:
    sweep = JudgedSweep()
    for reward in (0.2, 0.9, 0.8):
        sweep.trial(report(reward))
    for trial, halves in zip(("000", "001", "002"), ((0, 0), (1, 3), (2, 1)), strict=True):
        sweep.judged(trial, 40, {"eval/reward": rewards(*halves)})
    settled = settle(sweep.record)
    assert settled is not None
    assert [f.trial.id for f in settled.finalists] == ["002", "001", "000"]
    winner = settled.winner
    assert winner is not None
    assert winner.picked == pytest.approx(2, abs=0.02)
    assert winner.reported.value == pytest.approx(1, abs=0.02)
    assert winner.reported.low < winner.reported.value < winner.reported.high
    assert (winner.search, winner.search_stderr) == (0.8, 0.05)
    # All prompts have the same noise here, so a paired difference is exact.
    assert settled.over_default is not None
    assert settled.over_default.value == pytest.approx(1)
    assert not settled.over_default.holds_zero
    assert settled.runner_up is settled.finalists[1]
    assert settled.over_runner_up is not None
    assert settled.over_runner_up.value == pytest.approx(-2)
    assert settle(sweep.record) == settled


def test_the_searchs_number_helps_to_pick_by_its_precision_and_never_to_report() -> None:
    picks = []
    for stderr in (None, 1.0, 0.01):
        sweep = JudgedSweep()
        for search, finals in ((0.9, 1.0), (0.1, 1.05)):
            row = {"eval/reward": search} | ({"eval/reward_stderr": stderr} if stderr else {})
            trial = sweep.trial({40: row})
            sweep.judged(trial, 40, {"eval/reward": rewards(finals, finals)})
        settled = settle(sweep.record)
        assert settled is not None
        assert settled.winner is not None
        picks.append(settled.winner.trial.id)
        truth = {"000": 1.0, "001": 1.05}[settled.winner.trial.id]
        assert settled.winner.reported.value == pytest.approx(truth, abs=0.02)
    assert picks == ["001", "001", "000"]


def test_the_lowest_wins_where_lower_is_better() -> None:
    sweep = JudgedSweep(mode="min")
    for reward in (0.2, 0.9):
        sweep.judged(sweep.trial(report(reward)), 40, {"eval/reward": rewards(reward, reward)})
    settled = settle(sweep.record)
    assert settled is not None
    assert settled.winner is settled.default
    assert settled.over_default is None
    assert settled.over_runner_up is not None
    assert settled.over_runner_up.value == pytest.approx(-0.7)


def test_a_bound_is_kept_only_if_the_unfavourable_end_of_the_interval_keeps_it() -> None:
    limit = Bound("eval/kl", min=0.02, max=0.2)
    sweep = JudgedSweep(limit)
    kls = {"000": 0.15, "001": 0.198, "002": 0.3, "003": 0.0203}
    for reward, kl in enumerate(kls.values()):
        sweep.trial(report(float(reward), **{"eval/kl": kl}))
    for reward, (trial, kl) in enumerate(kls.items()):
        values = {"eval/reward": rewards(reward, reward), **nats(kl)}
        sweep.judged(trial, 40, values, TOKENS)
    settled = settle(sweep.record)
    assert settled is not None
    assert settled.winner is settled.default
    assert settled.nearest_miss is None
    by_trial = {finalist.trial.id: finalist for finalist in settled.finalists}
    lucky = by_trial["001"]
    assert lucky.metrics["eval/kl"].value == pytest.approx(0.198, abs=0.002)
    assert lucky.metrics["eval/kl"].high > 0.2
    assert 0 < lucky.violation < by_trial["002"].violation
    [(bound, why)] = broken_bounds(lucky, sweep.record.bounds)
    assert bound == limit
    assert why.startswith("its 95 % interval reaches up to 0.20")
    [(_, why)] = broken_bounds(by_trial["003"], sweep.record.bounds)
    assert why.startswith("its 95 % interval reaches down to 0.01")
    assert broken_bounds(by_trial["000"], sweep.record.bounds) == []


def test_where_nothing_is_feasible_the_nearest_miss_is_named() -> None:
    sweep = JudgedSweep(Bound("eval/kl", max=0.2))
    for reward, kl in ((1.0, 0.3), (9.0, 0.5), (0.5, 0.21)):
        trial = sweep.trial(report(reward, **{"eval/kl": kl}))
        values = {"eval/reward": rewards(reward, reward), **nats(kl)}
        sweep.judged(trial, 40, values, TOKENS)
    settled = settle(sweep.record)
    assert settled is not None
    assert settled.winner is settled.runner_up is settled.over_default is None
    assert settled.nearest_miss is not None
    assert settled.nearest_miss.trial.id == "002"


def test_a_metric_that_the_finals_do_not_measure_counts_as_the_search_reported_it() -> None:
    sweep = JudgedSweep(Bound("train/grad_norm", max=1.0))
    for reward, norm in ((0.5, 0.9), (2.0, 1.1), (3.0, None)):
        metrics = {} if norm is None else {"train/grad_norm": norm}
        trial = sweep.trial(report(reward, **metrics))
        sweep.judged(trial, 40, {"eval/reward": rewards(reward, reward)})
    settled = settle(sweep.record)
    assert settled is not None
    assert settled.winner is not None
    assert settled.winner.trial.id == "000"
    [(_, why)] = broken_bounds(settled.finalists[1], sweep.record.bounds)
    assert why == "as the search reported it"


def test_a_configuration_is_worth_the_mean_of_its_trainings() -> None:
    sweep = JudgedSweep()
    sweep.trial(report(0.1), params={"lr": 0.0})
    sweep.trial(report(0.9), params={"lr": 1.0})  # a lucky seed
    sweep.trial(report(0.8), params={"lr": 2.0})
    for lr in (1.0, 2.0):
        sweep.trial(report(0.5), params={"lr": lr}, source="finals", seed=1)
    for trial, reward in {"000": 0, "001": 3, "002": 2, "003": 0, "004": 2.5}.items():
        sweep.judged(trial, 40, {"eval/reward": rewards(reward, reward)})
    settled = settle(sweep.record)
    assert settled is not None
    winner = settled.winner
    assert winner is not None
    assert winner.trial.id == "004"  # the better one of the better configuration's two
    # The search's numbers weigh in by their precision: 0.5 and 0.8, at a twelfth of the weight.
    assert 2.0 < winner.score < 2.25
    assert winner.trainings == pytest.approx((2.5, 2.0), abs=0.02)
    assert settled.runner_up is not None
    assert settled.runner_up.trial.params == {"lr": 1.0}


def test_without_finalists_judged_on_the_objective_nothing_is_settled() -> None:
    sweep = JudgedSweep()
    trial = sweep.trial(report(0.5))
    assert settle(sweep.record) is None
    sweep.judged(trial, 40, {"eval/length": WAVE})
    assert settle(sweep.record) is None


def test_a_checkpoint_that_is_judged_twice_counts_as_it_was_last() -> None:
    sweep = JudgedSweep()
    trial = sweep.trial(report(0.5))
    sweep.judged(trial, 40, {"eval/reward": rewards(7, 7)})
    sweep.judged(trial, 40, {"eval/reward": rewards(1, 1)})
    settled = settle(sweep.record)
    assert settled is not None
    assert [round(f.reported.value) for f in settled.finalists] == [1]


def test_a_finalist_whose_checkpoint_is_gone_cannot_win() -> None:
    sweep = JudgedSweep()
    for trial, reward in zip(("000", "001", "002"), (0.2, 0.9, 0.8), strict=True):
        sweep.trial(report(reward))
        sweep.judged(trial, 40, {"eval/reward": rewards(reward, reward)})
    record = sweep.record
    best = find_best(record)
    assert best is not None
    assert best.trial.id == "001"
    record.trials["001"].forget(40)
    best = find_best(record)
    assert best is not None
    assert best.trial.id == "002"
