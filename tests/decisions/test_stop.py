from __future__ import annotations

from typing import Any

import pytest

from easyds_tune.decisions.decider import Over
from easyds_tune.decisions.stop import Limits, seconds_used
from easyds_tune.journal.events import (
    DecideEvent,
    Entry,
    FinishEvent,
    Objective,
    ResumeEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.spec.stop import StopSpec
from tests.decisions.racing import KL, Race, by_x


def counted(params: dict[str, Any], step: int) -> dict[str, float]:
    return by_x(params, step) | {"train/num_tokens": 100.0 * step}


def test_tokens_end_the_search_at_the_next_report() -> None:
    race = Race(counted, scheduler="none", stop=StopSpec(tokens=4000))
    record = race.run()
    # 2,700 by the default; 1,300 more are reached at the second trial's report at step 15.
    assert race.steps() == {"000": 27, "001": 15}
    assert record.trials["001"].state is TrialState.PRUNED
    assert record.trials["001"].decisions[-1].reason == (
        "4200 tokens were trained on, the limit is 4000"
    )
    assert race.next() == Over("4200 tokens were trained on, the limit is 4000")


def test_a_paused_trial_loses_when_the_search_ends() -> None:
    race = Race(counted, scheduler="halving", stop=StopSpec(tokens=3500))
    record = race.run()
    states = {trial.state for trial in record.trials.values()}
    assert states == {TrialState.COMPLETED, TrialState.PRUNED}


def test_hours_count_from_the_sweeps_begin() -> None:
    race = Race(by_x, scheduler="none", stop=StopSpec(hours=10 / 3600))
    race.run()
    assert race.now == 10


def test_hours_in_which_no_driver_ran_do_not_count() -> None:
    race = Race(by_x, scheduler="none", stop=StopSpec(hours=10 / 3600))
    race.run(until=7)
    ran = race.record.ran
    used = seconds_used(race.record, ran)
    race.now += 1000
    race.append(ResumeEvent(9))
    assert race.record.ran == ran
    assert race.decider.stop_event(ran) is None
    assert seconds_used(race.record, ran) == used
    assert race.decider.stop_event(ran + 3) is not None


def test_no_improvement_goes_by_the_journals_order_not_by_the_clock() -> None:
    """The best trial ended last; by a clock that jumped back it ended first."""
    race = Race(by_x, [1.0, 2.0, 3.0], scheduler="none", num_trials=4)
    race.run()
    for trial in race.record.trials.values():
        trial.ended = -(trial.ended or 0.0)
    assert Limits(race.rules.stop, race.rules.gpus, race.record).trials_without_improvement() == 0


@pytest.mark.parametrize(("gpus", "trials"), [(0.0, 4), (2.0, 2)])
def test_gpu_hours_count_busy_slots_times_their_gpus(gpus: float, trials: int) -> None:
    """Every trial takes nine seconds, and its record says one."""
    race = Race(by_x, scheduler="none", gpus=gpus, stop=StopSpec(gpu_hours=4 / 3600))
    race.run()
    assert len(race.record.trials) <= trials


def test_no_improvement_counts_trials_since_the_best_one() -> None:
    race = Race(by_x, [5.0, 1.0, 9.0, 2.0, 3.0, 4.0, 99.0], scheduler="none",
                stop=StopSpec(no_improvement=3))  # fmt: skip
    race.run()
    assert len(race.record.trials) == 7  # the default, and six; 99 is never tried


def test_a_trial_that_waits_at_a_rung_has_not_failed_to_improve() -> None:
    """Eleven wait at rung 3 with less than the default has at its end, and one will beat it."""
    race = Race(
        lambda params, step: {"eval/reward": step * (1 + params["x"])}, scheduler="halving",
        num_trials=12, stop=StopSpec(no_improvement=4),
    )  # fmt: skip
    race.run()
    assert len(race.record.trials) == 12
    assert race.steps()["011"] == 27


def test_a_promotion_takes_no_time_before_its_slot() -> None:
    """Between a promotion and the start that follows nothing runs, whatever came before."""
    race = Race(by_x, [1.0, 2.0], num_trials=3, scheduler="halving")
    race.run(until=11.5)
    trial = next(t for t in race.record.trials.values() if t.state is TrialState.PAUSED)
    before = seconds_used(race.record, race.now + 1000)
    race.append(DecideEvent(trial.id, trial.step, "halving", "promote", "the best"))
    assert seconds_used(race.record, race.now + 1000) == before


def test_what_lies_outside_of_a_bound_is_no_improvement() -> None:
    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": params["x"] / 20}

    race = Race(curve, [1.0, 50.0, 60.0, 70.0, 80.0], scheduler="none", bounds=(KL,),
                stop=StopSpec(no_improvement=3))  # fmt: skip
    race.run()
    assert len(race.record.trials) == 5


def failing(*messages: str) -> SweepRecord:
    """A sweep whose trials failed of one class of error, one after another."""
    first = SweepEvent("bug", "dpo", Objective("eval/reward"), 9, 60, 0.0)
    record = SweepRecord.begin(Entry(0, 0.0, first))
    for number, message in enumerate(messages):
        name = f"{number:03d}"
        error = TrialError("OSError", message)
        events = (
            SuggestEvent(name, number, {}, "sampler"),
            FinishEvent(name, TrialState.FAILED, 0, 1.0, error),
        )
        for event in events:
            seq = record.trials[name].suggested_seq + 1 if name in record.trials else 2 * number + 1
            record.apply(Entry(seq, float(seq), event))
    return record


def test_failures_are_alike_whatever_numbers_they_name() -> None:
    alike = failing(*(f"trials/00{number}: process {7 * number} is gone" for number in range(3)))
    reason = Limits(StopSpec(), 0.0, alike).reason(9.0)
    assert reason == "3 trials in a row failed alike: OSError: trials/002: process 14 is gone"
    other = failing("no such file", "no such file", "no such folder")
    assert Limits(StopSpec(), 0.0, other).reason(9.0) is None
