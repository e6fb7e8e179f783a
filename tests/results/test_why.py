"""What the last lines of a sweep admit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from easyds_tune.journal.events import (
    FinalistEvent,
    FinalsEvent,
    FinishEvent,
    StartEvent,
    StopEvent,
    SuggestEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.finals import settle
from easyds_tune.results.why import reasons

Sweep = Callable[..., Any]


def told(record: SweepRecord) -> str:
    return " ".join(reasons(record, settle(record)))


def searched(sweep: Sweep) -> Any:
    builder = sweep()
    builder.trial({10: {"eval/reward": 1.0}}).trial({10: {"eval/reward": 2.0}})
    builder.events.append(FinalsEvent([("001", 10), ("000", 10)]))
    return builder


def judge(builder: Any, trial: str, value: float) -> None:
    values = {"eval/reward": [value, value + 0.1] * 20}
    builder.events.append(FinalistEvent(trial, 10, f"trials/{trial}/checkpoints/10", values))


def test_whole_finals_have_nothing_to_admit(sweep: Sweep) -> None:
    builder = searched(sweep)
    judge(builder, "001", 2.0)
    judge(builder, "000", 1.0)
    assert "incomplete" not in told(builder.record())


def test_finals_that_were_broken_off_say_how_many_are_missing(sweep: Sweep) -> None:
    builder = searched(sweep)
    judge(builder, "001", 2.0)
    assert told(builder.record()).endswith(
        "The finals are incomplete: 1 of 2 finalists were not judged."
    )


def test_finals_in_which_nothing_could_be_judged_are_not_passed_over(sweep: Sweep) -> None:
    text = told(searched(sweep).record())
    assert text.startswith("Trial 001 at step 10 has the highest eval/reward")
    assert text.endswith("The finals are incomplete: 2 of 2 finalists were not judged.")


def test_trainings_on_new_seeds_that_failed_are_named(sweep: Sweep) -> None:
    builder = searched(sweep)
    judge(builder, "001", 2.0)
    judge(builder, "000", 1.0)
    builder.events += [
        SuggestEvent("002", 2, {}, "finals", 7), StartEvent("002", 1),
        FinishEvent("002", TrialState.DIVERGED, 0, 1.0),
    ]  # fmt: skip
    assert told(builder.record()).endswith("1 of 1 trainings on new seeds failed: 002 DIVERGED.")


def test_a_search_that_ended_early_says_why(sweep: Sweep) -> None:
    builder = searched(sweep)
    assert "ended early" not in told(builder.record())
    builder.events.append(StopEvent("60 tokens were trained on, the limit is 50"))
    assert told(builder.record()).endswith(
        " The search ended early: 60 tokens were trained on, the limit is 50."
    )
