from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import TrialState
from easyds_tune.results.ranking import find_default, find_winner, rank

Sweep = Callable[..., Any]


def scores(*values: float) -> dict[int, dict[str, float]]:
    return {10 * (place + 1): {"eval/reward": value} for place, value in enumerate(values)}


def order(builder: Any) -> list[tuple[str, int | None, float | None]]:
    return [(r.trial.id, r.step, r.value) for r in rank(builder.record())]


def test_a_trial_counts_with_its_best_step_not_its_last(sweep: Sweep) -> None:
    builder = sweep().trial(scores(1, 2)).trial(scores(1, 3, 0))
    assert order(builder) == [("001", 20, 3), ("000", 20, 2)]
    assert rank(builder.record())[0].checkpoint == "trials/001/checkpoints/step-000020"


def test_less_is_better_where_the_mode_is_min(sweep: Sweep) -> None:
    assert order(sweep("min").trial(scores(2, 1)).trial(scores(3))) == [
        ("000", 20, 1),
        ("001", 10, 3),
    ]


def test_ties_go_to_the_earlier_step_and_the_earlier_trial(sweep: Sweep) -> None:
    assert order(sweep().trial(scores(5, 5)).trial(scores(5))) == [("000", 10, 5), ("001", 10, 5)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_never_counts(sweep: Sweep, bad: float) -> None:
    assert order(sweep().trial(scores(bad, 1, bad)).trial(scores(bad))) == [
        ("000", 20, 1),
        ("001", None, None),
    ]


@pytest.mark.parametrize("state", ["DIVERGED", "OUT_OF_MEMORY", "FAILED"])
def test_an_unfit_trial_never_ranks_above_a_finished_one(sweep: Sweep, state: str) -> None:
    builder = sweep().trial(scores(9), TrialState(state)).trial(scores(1)).trial({})
    assert [name for name, _, _ in order(builder)] == ["001", "000", "002"]
    winner = find_winner(rank(builder.record()))
    assert winner is not None
    assert winner.trial.id == "001"


def judged(*pairs: tuple[float, float]) -> dict[int, dict[str, float]]:
    """Reports of reward and KL, ten steps apart."""
    return {
        10 * (place + 1): {"eval/reward": reward, "eval/kl": kl}
        for place, (reward, kl) in enumerate(pairs)
    }


KL = (Bound("eval/kl", max=0.2, from_step=1000),)


def test_nothing_outside_of_a_bound_is_ever_first(sweep: Sweep) -> None:
    builder = sweep(bounds=KL).trial(judged((9, 0.3))).trial(judged((1, 0.1)))
    assert [name for name, _, _ in order(builder)] == ["001", "000"]
    only = sweep(bounds=KL).trial(judged((9, 0.3)))
    assert find_winner(rank(only.record())) is None


def test_a_bounded_trial_counts_with_its_best_checkpoint_inside(sweep: Sweep) -> None:
    rows = judged((1, 0.05), (4, 0.15), (9, 0.3))
    builder = sweep(bounds=KL).trial(judged((3, 0.1))).trial(rows, TrialState.BOUNDED)
    assert order(builder)[0] == ("001", 20, 4)


def test_the_nearest_miss_is_first_among_the_infeasible(sweep: Sweep) -> None:
    builder = sweep(bounds=KL).trial(judged((9, 0.5))).trial(judged((1, 0.3), (5, 0.21)))
    assert order(builder) == [("001", 20, 5), ("000", 10, 9)]
    assert rank(builder.record())[0].violation == pytest.approx(0.05)


def test_a_bound_on_what_was_not_reported_is_broken(sweep: Sweep) -> None:
    builder = sweep(bounds=KL).trial(scores(9))
    assert not rank(builder.record())[0].is_fit


def test_an_early_checkpoint_of_a_pruned_trial_can_win(sweep: Sweep) -> None:
    builder = sweep().trial(scores(1)).trial(scores(4, 0), TrialState.PRUNED)
    assert order(builder)[0] == ("001", 10, 4)


def test_a_step_without_a_checkpoint_loses_to_one_with(sweep: Sweep) -> None:
    builder = sweep().trial(scores(1, 2))
    builder.events.pop(-2)  # the checkpoint of step 20
    assert order(builder) == [("000", 10, 1)]


def test_a_trial_without_any_checkpoint_ranks_but_wins_only_alone(sweep: Sweep) -> None:
    builder = sweep().trial(scores(9), checkpoints=False)
    alone = find_winner(rank(builder.record()))
    assert alone is not None
    assert (alone.value, alone.checkpoint) == (9, None)

    builder.trial(scores(1))
    ranking = rank(builder.record())
    winner = find_winner(ranking)
    assert [entry.trial.id for entry in ranking] == ["000", "001"]
    assert winner is not None
    assert winner.trial.id == "001"


def test_no_fit_trial_means_no_winner(sweep: Sweep) -> None:
    assert find_winner(rank(sweep().trial(scores(3), TrialState.FAILED).record())) is None
    assert find_winner(rank(sweep().record())) is None


def test_the_default_is_trial_zero_wherever_it_ranks(sweep: Sweep) -> None:
    default = find_default(rank(sweep().trial(scores(1)).trial(scores(2)).record()))
    assert default is not None
    assert default.trial.source == "default"
