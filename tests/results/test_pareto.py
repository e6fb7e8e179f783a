from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import Objective, TrialState
from easyds_tune.results.best import best_json
from easyds_tune.results.pareto import pareto_front

Sweep = Callable[..., Any]
BOTH = (Objective("eval/reward", "max"), Objective("eval/kl", "min"))


def judged(*pairs: tuple[float, float]) -> dict[int, dict[str, float]]:
    """Reports of reward and KL, ten steps apart."""
    return {
        10 * (place + 1): {"eval/reward": reward, "eval/kl": kl}
        for place, (reward, kl) in enumerate(pairs)
    }


def front(builder: Any) -> list[tuple[str, int, tuple[float, ...]]]:
    return [(point.trial.id, point.step, point.values) for point in pareto_front(builder.record())]


def test_the_front_holds_what_nothing_beats_in_all(sweep: Sweep) -> None:
    """(3, 0.2) is beaten by (3, 0.1), (1, 0.15) by both; (4, 0.3) and (0.5, 0.0) by none."""
    builder = sweep(objectives=BOTH)
    builder.trial(judged((0.5, 0.0), (3, 0.2))).trial(judged((1, 0.15), (3, 0.1), (4, 0.3)))
    assert front(builder) == [("001", 30, (4, 0.3)), ("001", 20, (3, 0.1)), ("000", 10, (0.5, 0))]


def test_of_equals_the_earlier_trial_stays(sweep: Sweep) -> None:
    builder = sweep(objectives=BOTH).trial(judged((1, 0.1))).trial(judged((1, 0.1)))
    assert front(builder) == [("000", 10, (1, 0.1))]


def test_what_is_infeasible_failed_or_no_number_is_not_on_it(sweep: Sweep) -> None:
    builder = sweep(objectives=BOTH, bounds=(Bound("eval/kl", max=0.2),))
    builder.trial(judged((9, 0.3), (1, 0.1))).trial(judged((8, 0.1)), TrialState.DIVERGED)
    builder.trial(judged((math.nan, 0.0), (2, math.nan)))
    assert front(builder) == [("000", 20, (1, 0.1))]


def test_three_objectives(sweep: Sweep) -> None:
    three = (*BOTH, Objective("time/train_seconds", "min"))
    builder = sweep(objectives=three)
    for reward, kl, seconds in ((1, 0.1, 9), (1, 0.1, 5), (1, 0.05, 9), (0.9, 0.2, 6)):
        builder.trial({10: {"eval/reward": reward, "eval/kl": kl, "time/train_seconds": seconds}})
    assert [name for name, *_ in front(builder)] == ["002", "001"]


@pytest.mark.parametrize("objectives", [(), BOTH])
def test_best_shows_the_front_of_several_objectives_alone(
    sweep: Sweep, objectives: tuple[Objective, ...]
) -> None:
    builder = sweep(objectives=objectives).trial(judged((1, 0.1), (2, 0.2)))
    shown = best_json(builder.record())["front"]
    assert [point["values"] for point in shown] == (
        [{"eval/reward": 2, "eval/kl": 0.2}, {"eval/reward": 1, "eval/kl": 0.1}]
        if objectives
        else []
    )
