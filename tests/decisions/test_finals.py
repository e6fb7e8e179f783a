"""Who enters the finals, and that finals of checkpoints with known truth tell the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyds_tune.decisions.finals import (
    ROUNDS,
    choose_finalists,
    find_finals,
    is_written,
    next_round,
    nominated,
    retrained_finalists,
    retrainings,
)
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import FinalsEvent, LostEvent, RestoreEvent, TrialState
from easyds_tune.results.finals import settle
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.sweep import SweepSpec
from tests.integration.sweeps import spec_file
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


def test_those_likely_to_be_found_inside_come_before_those_that_may_be_lucky() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.1)})
    sweep.trial({10: row(0.9, kl=0.195)})  # found inside in a quarter of all finals
    sweep.trial({10: row(0.5, kl=0.17)})  # in nine of ten
    sweep.trial({10: row(2.0, kl=0.21)})  # outside
    sweep.trial({10: row(3.0, kl=float("nan"))})
    assert choose_finalists(sweep.record, 4) == [("002", 10), ("001", 10), ("000", 10)]


def test_finals_of_few_prompts_are_given_more_cautious_checkpoints() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.1, kl=0.02, kl_stderr=0.001)})
    sweep.trial({10: row(0.9, kl=0.19, kl_stderr=0.002)})
    sweep.trial({10: row(0.7, kl=0.15, kl_stderr=0.002)})
    record = sweep.record
    assert choose_finalists(record, 1)[0] == ("001", 10)
    record.finals_per_judge = 1 / 64
    assert choose_finalists(record, 1)[0] == ("002", 10)


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


def finals_of(sweep: JudgedSweep, kls: dict[str, float], rewards: float = 1.0) -> None:
    """Round 1 of these trials at step 10, judged with these KLs."""
    sweep.add(FinalsEvent([(trial, 10) for trial in kls]))
    judge(sweep, kls, rewards)


def judge(sweep: JudgedSweep, kls: dict[str, float], rewards: float = 1.0, step: int = 10) -> None:
    for trial, kl in kls.items():
        values = {
            "eval/reward": [rewards + 0.1 * (n % 7) for n in range(64)],
            "eval/kl": [20 * kl * (0.9 + 0.05 * (n % 5)) for n in range(64)],
        }
        sweep.judged(trial, step, values, {"eval/kl": [20.0] * 64})


def rising(count: int = 8) -> JudgedSweep:
    """Trials whose reward and KL rise together, 0.05 to 0.19."""
    sweep = JudgedSweep(LIMIT)
    for number in range(count):
        sweep.trial({10: row(0.1 * number, kl=0.05 + 0.02 * number, kl_stderr=0.002)})
    return sweep


def test_where_a_whole_round_breaks_a_bound_more_cautious_ones_follow() -> None:
    sweep = rising()
    finals_of(sweep, {"007": 0.24, "006": 0.22, "000": 0.055})
    found = next_round(sweep.record, 2)
    assert found is not None
    # The finals measured 0.05 more than the search: 0.15 would be on the limit, 0.13 is inside.
    assert found == FinalsEvent([("007", 10), ("006", 10), ("000", 10), *found.finalists[3:]], 2)
    assert found.finalists[3] == ("004", 10)
    sweep.add(found)
    assert nominated(sweep.record, 2) == found.finalists
    assert next_round(sweep.record, 2) is not None  # those that could not be judged keep no bound
    judge(sweep, {"004": 0.18, found.finalists[4][0]: 0.21})
    assert next_round(sweep.record, 2) is None


def test_a_default_inside_the_bounds_leaves_only_what_the_search_put_above_it() -> None:
    sweep = JudgedSweep(LIMIT)
    for reward, kl in ((0.5, 0.1), (0.9, 0.19), (0.4, 0.05)):
        sweep.trial({10: row(reward, kl)})
    finals_of(sweep, {"001": 0.23, "000": 0.1})
    assert next_round(sweep.record, 1) is None
    sweep.trial({10: row(0.6, kl=0.12)})
    sweep.add(FinalsEvent([("001", 10), ("000", 10)]))
    found = next_round(sweep.record, 1)
    assert found is not None
    assert found.finalists[2:] == [("003", 10)]


def test_rounds_end() -> None:
    sweep = rising(20)
    finals_of(sweep, {"007": 0.24, "000": 0.21})
    for number in range(2, ROUNDS + 1):
        found = next_round(sweep.record, 1)
        assert found is not None
        assert found.round == number
        sweep.add(found)
        judge(sweep, {found.finalists[-1][0]: 0.3})
    assert next_round(sweep.record, 1) is None


def test_the_objective_of_the_finals_has_no_part_in_a_further_round() -> None:
    found = []
    for rewards in (-5.0, 0.0, 5.0):
        sweep = rising()
        finals_of(sweep, {"007": 0.24, "006": 0.22, "000": 0.055}, rewards)
        found.append(next_round(sweep.record, 2))
    assert found[0] == found[1] == found[2] != None  # noqa: E711


def test_finalists_of_a_further_round_are_trained_again_too() -> None:
    sweep = rising()
    finals_of(sweep, {"007": 0.24, "000": 0.055})
    sweep.trial({10: row(0.7, kl=0.19, kl_stderr=0.002)}, params={"algorithm.beta": 7.1},
                source="finals", seed=1)  # fmt: skip
    judge(sweep, {"008": 0.25})
    found = next_round(sweep.record, 1)
    assert found is not None
    sweep.add(found)
    [new] = found.finalists[2:]
    assert nominated(sweep.record, 1) == [("007", 10), ("000", 10), new]
    again = retrainings(sweep.record, nominated(sweep.record, 1), seeds=1, seed=0)
    assert [r.params for r in again] == [
        sweep.record.trials[trial].params for trial in ("000", new[0])
    ]
    sweep.trial({10: row(0.7, kl=0.19)}, params={"algorithm.beta": 0.1 + int(new[0])},
                source="finals", seed=1)  # fmt: skip
    assert sweep.record.finals_round == 2
    assert ("009", 10) in retrained_finalists(sweep.record, nominated(sweep.record, 1))


def test_a_search_that_goes_on_begins_its_finals_anew() -> None:
    sweep = rising()
    finals_of(sweep, {"007": 0.24, "000": 0.055})
    assert nominated(sweep.record, 1) == [("007", 10), ("000", 10)]
    name = sweep.trial({10: row(5.0, kl=0.05)})
    assert sweep.record.finals_round == 0
    assert next_round(sweep.record, 1) is None
    assert nominated(sweep.record, 1) == [(name, 10), ("000", 10)]


def lose(sweep: JudgedSweep, *trials: str, step: int = 10) -> None:
    sweep.add(*(LostEvent(trial, step, "missing") for trial in trials))


def with_finals(path: Path, top: int) -> SweepSpec:
    return load_sweep(str(spec_file(path, "small", finals={"top": top})))


def test_where_every_finalist_is_lost_others_are_chosen(tmp_path: Path) -> None:
    spec = with_finals(tmp_path, top=2)
    sweep = rising()
    finals_of(sweep, {"005": 0.1, "004": 0.1, "000": 0.055})
    lose(sweep, "005", "004", "000")
    found = find_finals(sweep.record, spec)
    assert found is not None
    assert found == FinalsEvent(choose_finalists(sweep.record, 2), 1)
    assert not {("005", 10), ("004", 10), ("000", 10)} & set(found.finalists)
    assert next_round(sweep.record, 2) == found  # a driver that sees the loss judges them
    sweep.add(found)
    assert find_finals(sweep.record, spec) == found
    judge(sweep, {trial: 0.1 for trial, _ in found.finalists})
    assert next_round(sweep.record, 2) is None

    sweep.add(FinalsEvent(found.finalists, ROUNDS))
    lose(sweep, *(trial for trial, _ in found.finalists))
    again = next_round(sweep.record, 2)  # after the last round too
    assert again == FinalsEvent(choose_finalists(sweep.record, 2), ROUNDS)
    lose(sweep, *(trial.id for trial in sweep.record.trials.values()))
    assert next_round(sweep.record, 2) is None
    assert find_finals(sweep.record, spec) is None


def test_some_lost_finalists_leave_the_round_as_it_is_written(tmp_path: Path) -> None:
    sweep = rising()
    finals_of(sweep, {"005": 0.1, "004": 0.1, "000": 0.055})
    lose(sweep, "005")
    found = find_finals(sweep.record, with_finals(tmp_path, top=2))
    assert found == FinalsEvent([("004", 10), ("000", 10)], 1)
    assert is_written(sweep.record, found)
    assert next_round(sweep.record, 2) is None


def test_another_round_follows_where_the_only_fit_finalist_is_lost() -> None:
    sweep = rising()
    finals_of(sweep, {"007": 0.24, "005": 0.1, "000": 0.055})
    assert next_round(sweep.record, 2) is None
    lose(sweep, "005")
    found = next_round(sweep.record, 2)
    assert found is not None
    assert found.round == 2
    assert not {("007", 10), ("005", 10), ("000", 10)} & set(found.finalists[3:])
    sweep.add(RestoreEvent("005", 10, "trials/005/checkpoints/step-000010", 1024, "ab"))
    assert next_round(sweep.record, 2) is None


def test_a_lost_default_is_still_no_finalist_that_ends_the_rounds() -> None:
    sweep = rising()
    finals_of(sweep, {"007": 0.24, "000": 0.055})
    sweep.trial({10: row(0.0, kl=0.05)}, params={"algorithm.beta": 0.1}, source="finals", seed=1)
    judge(sweep, {"008": 0.05})  # the default, trained again
    lose(sweep, "000")
    found = next_round(sweep.record, 1)
    assert found is not None
    assert found.round == 2


def test_a_fit_checkpoint_of_the_default_other_than_the_one_compared_with_ends_the_rounds() -> None:
    sweep = JudgedSweep(LIMIT)
    sweep.trial({10: row(0.5, kl=0.18), 20: row(0.4, kl=0.1)})
    sweep.trial({10: row(0.9, kl=0.19)})
    sweep.trial({10: row(0.8, kl=0.1)})
    finals_of(sweep, {"001": 0.24, "000": 0.23})
    sweep.add(FinalsEvent([("001", 10), ("000", 10), ("000", 20)], 2))
    assert next_round(sweep.record, 1) is not None
    judge(sweep, {"000": 0.1}, step=20)
    assert next_round(sweep.record, 1) is None
    lose(sweep, "000")  # the one compared with: another does not take its place
    assert next_round(sweep.record, 1) is None


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("prompts", [64, 128])
def test_the_winners_interval_covers_its_true_value_and_its_kl_is_truly_inside(
    prompts: int, skewed: bool
) -> None:
    """16 trials whose reward and KL rise together; the search's 64 prompts, then the finals'."""
    rng = np.random.default_rng(prompts + skewed)
    runs, covered, covered_gap, outside, lucky = 300, 0, 0, 0, 0
    for _ in range(runs):
        sweep, judged = JudgedSweep(LIMIT), 0
        truths: dict[str, Truth] = {}
        easy = rng.normal(0, 0.5, 64)
        for _ in range(16):
            kl = float(rng.uniform(0.05, 0.3))
            truth = Truth(float(2 * kl + rng.normal(0, 0.1)), kl)
            truths[sweep.trial({40: summary(*measure(rng, easy, truth, 0.5, skewed))})] = truth
        fresh = rng.exponential(0.5, prompts) - 0.5 if skewed else rng.normal(0, 0.5, prompts)
        found: FinalsEvent | None = FinalsEvent(choose_finalists(sweep.record, 5))
        while found is not None:
            for trial, step in found.finalists[judged:]:
                sweep.judged(trial, step, *measure(rng, fresh, truths[trial], 0.5, skewed))
            judged = len(found.finalists)
            sweep.add(found)
            found = next_round(sweep.record, 5)
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
