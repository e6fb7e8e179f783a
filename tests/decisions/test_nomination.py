"""The odds that the finals find a checkpoint inside its bounds, and who is nominated by them."""

from __future__ import annotations

import math
import random

import pytest

from easyds_tune.decisions.nomination import (
    CAUTION,
    Candidate,
    candidates,
    expected_odds,
    measured_odds,
    nominate,
    pool,
)
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.replay import SweepRecord
from tests.results.judged import JudgedSweep

LIMIT = Bound("eval/kl", max=0.2)


def row(reward: float, kl: float, kl_stderr: float | None = 0.01) -> dict[str, float]:
    errors = {} if kl_stderr is None else {"eval/kl_stderr": kl_stderr}
    return {"eval/reward": reward, "eval/kl": kl} | errors


def probabilities(record: SweepRecord, finals_per_judge: float = 2.0) -> list[float]:
    record.finals_per_judge = finals_per_judge
    odds = expected_odds(record)
    return [c.probability for t in record.trials.values() for c in candidates(record, t, odds)]


def judged(sweep: JudgedSweep, trial: str, kl: float, spread: float = 0.0) -> None:
    """64 prompts around a KL, the halves alike."""
    nats = [20 * kl * (1 + spread * math.cos(5 * n)) for n in range(64)]
    values = {"eval/reward": [1.0 + 0.1 * math.sin(n) for n in range(64)], "eval/kl": nats}
    sweep.judged(trial, 10, values, {"eval/kl": [20.0] * 64})


def test_the_probability_counts_the_errors_of_both_measurements_and_the_finals_interval() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.5, kl=0.17)})
    # Twice the prompts: the end lies 1.96·0.01·√½ = 0.0139 further, ± 0.01·√1.5 = 0.0122.
    assert probabilities(sweep.record) == [pytest.approx(0.906, abs=1e-3)]  # 1.32 deviations
    # A sixteenth of them: 0.0784 further, ± 0.0412.
    assert probabilities(sweep.record, 1 / 16) == [pytest.approx(0.120, abs=1e-3)]  # -1.17


def test_every_end_of_a_bound_counts_and_what_the_search_gave_no_error_for_is_taken_as_exact() -> (
    None
):
    sweep = JudgedSweep(Bound("eval/kl", min=0.14, max=0.2), Bound("train/grad_norm", max=2.0))
    sweep.trial({10: row(0.5, kl=0.17) | {"train/grad_norm": 1.9}})
    assert probabilities(sweep.record) == [pytest.approx(0.906**2, abs=2e-3)]


def test_a_share_is_not_feared_to_exceed_one() -> None:
    sweep = JudgedSweep(Bound("eval/accuracy", min=0.2, max=1.0))
    sweep.trial({10: {"eval/reward": 0.5, "eval/accuracy": 0.98, "eval/accuracy_stderr": 0.02}})
    assert probabilities(sweep.record) == [pytest.approx(1)]


def test_what_the_finals_measured_replaces_what_was_expected() -> None:
    sweep = JudgedSweep(LIMIT)
    for _ in range(3):
        sweep.trial({10: row(0.5, kl=0.15)})
    judged(sweep, "000", kl=0.19)
    judged(sweep, "001", kl=0.21)
    record = sweep.record
    [overshoot] = measured_odds(record, record.finalists).values()
    assert overshoot.mean == pytest.approx(5)  # 0.04 and 0.06 beyond, at an error of 0.01
    assert overshoot.in_errors
    odds = measured_odds(record, record.finalists)
    inside = [c.probability for c in candidates(record, record.trials["002"], odds)]
    assert inside == [pytest.approx(0.5)]
    assert measured_odds(record, []) == expected_odds(record)


def test_without_errors_of_the_search_the_distance_is_in_the_metrics_own_unit() -> None:
    sweep = JudgedSweep(LIMIT)
    for kl in (0.19, 0.18, 0.13, 0.15):
        sweep.trial({10: row(0.5, kl, kl_stderr=None)})
    judged(sweep, "000", kl=0.23)
    judged(sweep, "001", kl=0.24)
    record = sweep.record
    odds = measured_odds(record, record.finalists)
    inside = {c.trial: c.probability for t in record.trials.values()
              for c in candidates(record, t, odds)}  # fmt: skip
    assert inside["002"] > 0.95  # 0.05 ± 0.01 beyond: 0.18
    assert inside["003"] == pytest.approx(0.5)


def some(*found: tuple[float, float]) -> list[Candidate]:
    """Candidates of one trial each, by (value, probability)."""
    return [
        Candidate(-value, number, 10, f"{number:03d}", probability)
        for number, (value, probability) in enumerate(found)
    ]


def names(found: list[tuple[str, int]]) -> list[str]:
    return [trial for trial, _ in found]


def test_among_equal_odds_the_best_value_comes_first() -> None:
    assert names(nominate(some((0.2, 1), (0.9, 1), (0.5, 1), (0.1, 1)), 3)) == ["001", "002", "000"]


def test_probability_times_gain_decides_and_a_sure_one_stands_beside_bold_ones() -> None:
    found = some((1.0, 0.6), (0.95, 0.6), (0.9, 0.6), (0.8, 0.99), (0.1, 1))
    assert names(nominate(found, 3)) == ["003", "000", "001"]


def test_those_that_hardly_pass_are_last() -> None:
    found = some((9.0, 0.001), (0.5, 0.9), (0.4, 0.9), (0.1, 1))
    assert names(nominate(found, 2)) == ["001", "002"]


def test_a_round_takes_two_of_a_trial_at_most() -> None:
    found = [Candidate(-1.0 + step / 100, 1, step, "001", 1.0) for step in (10, 20, 30)]
    assert names(nominate([*found, *some((0.1, 1))], 4)) == ["001", "001", "000"]


def test_what_the_pool_leaves_out_stays_out_when_candidates_are_added() -> None:
    """So checkpoints outside of it may be deleted while trials are still to come."""
    source = random.Random(0)
    found = [
        Candidate(source.choice([0.1, 0.2, 0.3, source.random()]), number // 3, number % 3,
                  f"{number // 3:03d}", source.choice([0.0, 0.5, 1.0, source.random()]))
        for number in range(90)
    ]  # fmt: skip
    kept: list[Candidate] = []
    for count, candidate in enumerate(found, start=1):
        kept = pool([*kept, candidate], 4)
        assert len(kept) <= 4 * len(CAUTION)
        assert nominate(kept, 4) == nominate(found[:count], 4)


def test_the_order_does_not_hang_on_the_order_of_the_candidates() -> None:
    source = random.Random(1)
    found = some(*((source.random(), source.random()) for _ in range(40)))
    shuffled = source.sample(found, len(found))
    assert nominate(found, 5) == nominate(shuffled, 5)
