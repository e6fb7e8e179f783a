"""All decisions together, and that they are a fold over the journal."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import pytest

from easyds_tune.decisions.decider import New, Over, Wait
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import StartEvent, SuggestEvent, TrialState
from easyds_tune.spec.stop import StopSpec
from tests.decisions.racing import KL, Race, by_x

SCHEDULERS = ("none", "asha", "asha_stop", "halving", "median")


def noisy(params: dict[str, Any], step: int) -> dict[str, float]:
    """Noise by configuration and step; a few break the bound on the KL, or are no number."""
    draw = random.Random(f"{params['x']} {step}")
    reward = math.nan if draw.random() < 0.02 else params["x"] / 50 + draw.gauss(0, 0.5)
    return {
        "eval/reward": reward,
        "eval/kl": step / 120 * draw.random(),
        "train/num_tokens": 10.0 * step,
    }


def test_the_default_is_first_then_the_points_then_the_sampler() -> None:
    race = Race(by_x, points=[{"x": 30.0}, {"x": 40.0}], num_trials=4, scheduler="none")
    record = race.run()
    assert [(trial.source, trial.params["x"]) for trial in record.trials.values()] == [
        ("default", 0.0), ("point", 30.0), ("point", 40.0), ("sampler", 3.0),
    ]  # fmt: skip


def test_no_more_trials_than_slots_run_at_a_time() -> None:
    race = Race(by_x, slots=2, scheduler="none")
    for _ in range(2):
        assert race.next() == New()
        race.start()
    assert race.next() == Wait()


def test_a_number_is_never_given_twice_where_a_repair_lost_trials() -> None:
    race = Race(by_x, scheduler="none", num_trials=4)
    race.run()
    for lost in ("000", "002"):
        del race.record.trials[lost]
    race.run()
    assert list(race.record.trials) == ["001", "003", "004", "005"]
    assert race.record.trials["004"].source == "sampler"


def test_a_suggested_trial_that_has_not_begun_holds_a_slot() -> None:
    race = Race(by_x, slots=1)
    race.append(SuggestEvent("000", 0, {"x": 0.0}, "default"))
    assert race.next() == Wait()


def test_a_grid_that_is_exhausted_ends_the_search() -> None:
    race = Race(by_x, [1.0, 2.0], num_trials=9, scheduler="none")
    race.run()
    assert len(race.record.trials) == 3
    assert race.next() == Over("all trials have ended")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_guards_verdict_outranks_the_scheduler(scheduler: str) -> None:
    """The best trial of all breaks a hard bound at its first rung, and never goes on."""

    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": 0.5 if params["x"] == 9 else 0.1}

    race = Race(curve, [9.0, 1.0, 2.0], num_trials=4, scheduler=scheduler, bounds=(KL,))
    record = race.run()
    broken = record.trials["001"]
    assert (broken.state, broken.step) == (TrialState.BOUNDED, 3)
    (decision,) = broken.decisions
    assert (decision.by, decision.action) == ("guard", "stop")
    assert decision.reason == "eval/kl is 0.5, must be at most 0.2"


def test_a_trial_whose_last_report_breaks_a_hard_bound_did_not_complete() -> None:
    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": 1.0, "eval/kl": 0.5 if step == 27 else 0.1}

    race = Race(curve, num_trials=1, scheduler="none", bounds=(KL,))
    assert race.run().trials["000"].state is TrialState.BOUNDED


def test_a_soft_bound_is_noted_and_the_trial_goes_on() -> None:
    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": 1.0, "eval/kl": 0.5}

    soft = Bound("eval/kl", max=0.2, hard=False)
    race = Race(curve, num_trials=1, scheduler="none", bounds=(soft,), max_steps=6)
    trial = race.run().trials["000"]
    assert trial.state is TrialState.COMPLETED
    assert [(d.by, d.action) for d in trial.decisions] == [("guard", "note")] * 2


def test_a_diverged_trial_ends_at_once() -> None:
    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": math.nan}

    race = Race(curve, num_trials=1, scheduler="none")
    trial = race.run().trials["000"]
    assert (trial.state, trial.step) == (TrialState.DIVERGED, 3)


def test_the_finals_train_the_best_configurations_again_on_new_seeds() -> None:
    race = Race(by_x, [3.0, 9.0, 5.0], num_trials=4, scheduler="none", top=2, seeds=2, seed=7)
    record = race.run()
    again = [trial for trial in record.trials.values() if trial.source == "finals"]
    # The two best checkpoints are both of 9, and the default goes along to be compared with.
    assert sorted((trial.params["x"], trial.seed) for trial in again) == [
        (0.0, 8), (0.0, 9), (9.0, 8), (9.0, 9),
    ]  # fmt: skip
    assert {trial.state for trial in again} == {TrialState.COMPLETED}


def test_retrained_trials_follow_a_search_that_a_limit_ended() -> None:
    race = Race(noisy, scheduler="none", stop=StopSpec(tokens=400), seeds=1, slots=3)
    record = race.run()
    assert any(trial.source == "finals" for trial in record.trials.values())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("slots", [1, 4])
def test_decisions_are_a_fold_over_the_journal(scheduler: str, slots: int) -> None:
    """A decider made anew from the events, at any time, goes on as the one that lived through."""
    changes: dict[str, Any] = {
        "scheduler": scheduler, "slots": slots, "num_trials": 27, "bounds": (KL,), "seeds": 1,
        "stop": StopSpec(tokens=2000),
        "rungs": tuple(range(3, 27, 3)) if scheduler == "median" else (3, 9),
    }  # fmt: skip
    whole = Race(noisy, **changes)
    whole.run()
    for until in (4.5, 20.5, 33.5):
        live = Race(noisy, **changes)
        live.run(until)
        assert str(live.entries) == str(whole.entries[: len(live.entries)])
        assert str(live.record.trials) == str(live.replayed().trials)  # as text: NaN is not NaN
        fresh = live.make_decider(live.replayed())
        decision = live.next()
        assert fresh.next() == decision
        if isinstance(decision, New):
            assert fresh.propose() == live.decider.propose()
        running = [t for t in live.record.trials.values() if t.state is TrialState.RUNNING]
        for trial in running:
            step, seen = trial.step + 3, len(live.entries)
            verdict = live.report(trial.id, step, noisy(trial.params, step))
            for entry in live.entries[seen : seen + 2]:  # the report and its checkpoint
                fresh.record.apply(entry)
            assert fresh.on_report(trial.id, step >= live.max_steps) == verdict
            for entry in live.entries[seen + 2 :]:
                fresh.record.apply(entry)


def test_a_decider_costs_little_a_report() -> None:
    """A thousand trials on sixteen slots; the 5 ms a report that the benchmark allows."""
    race = Race(by_x, random.Random(0).sample(range(2000), 1000), num_trials=1000, slots=16)
    spent, reports = 0.0, 0
    on_report, next_decision = race.decider.on_report, race.decider.next

    def timed_report(name: str, is_last: bool) -> Any:
        nonlocal spent, reports
        started = time.perf_counter()
        verdict = on_report(name, is_last)
        spent += time.perf_counter() - started
        reports += 1
        return verdict

    def timed_next() -> Any:
        nonlocal spent
        started = time.perf_counter()
        decision = next_decision()
        spent += time.perf_counter() - started
        return decision

    race.decider.on_report, race.decider.next = timed_report, timed_next  # type: ignore[method-assign]
    race.run()
    starts = sum(isinstance(entry.event, StartEvent) for entry in race.entries)
    assert starts > 1000
    assert spent / reports < 0.005
