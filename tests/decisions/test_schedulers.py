"""Who goes on at a rung, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import Objective, TrialState
from tests.decisions.racing import KL, Race, by_x


def ended(race: Race) -> dict[str, tuple[str, int]]:
    return {name: (str(trial.state), trial.step) for name, trial in race.record.trials.items()}


def test_none_lets_every_trial_run_to_its_end() -> None:
    race = Race(by_x, scheduler="none", num_trials=3)
    race.run()
    assert ended(race) == dict.fromkeys(("000", "001", "002"), ("COMPLETED", 27))


def test_asha_pauses_the_first_arrivals_and_promotes_the_best_third() -> None:
    """x = 5, 1, 9, 2, 3: of the first three at rung 3 the best, 9, goes on, alone."""
    race = Race(by_x, [5.0, 1.0, 9.0, 2.0, 3.0], num_trials=6, scheduler="asha")
    race.run()
    assert race.log == [
        "start 000", "COMPLETED 000 27", "start 001", "PAUSED 001 3", "start 002", "PAUSED 002 3",
        "start 003", "PAUSED 003 9", "start 004", "PAUSED 004 3", "start 005", "PAUSED 005 3",
        "promote 003", "COMPLETED 003 27",
    ]  # fmt: skip
    assert ended(race)["002"] == ("PRUNED", 3)


def test_asha_nobody_passes_for_having_come_first() -> None:
    race = Race(by_x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], scheduler="asha", num_trials=9)
    record = race.run()
    first = record.trials["001"]
    assert first.decisions[0].action == "pause"
    assert record.trials["008"].state is TrialState.COMPLETED


def test_asha_sends_one_on_where_a_closed_rung_has_too_few() -> None:
    """Rung 3 holds two, a third of which is none, and rung 9 then one: each sends one on."""
    race = Race(by_x, [1.0, 2.0], num_trials=3, scheduler="asha")
    race.run()
    assert race.steps() == {"000": 27, "001": 3, "002": 27}


def test_halving_waits_for_all_and_then_sends_the_best_third_on() -> None:
    race = Race(by_x, [3.0, 8.0, 1.0, 2.0, 7.0, 4.0, 5.0, 6.0], scheduler="halving")
    record = race.run()
    # Eight at rung 3 besides the default: two go on, 8 and 7, and one of them from rung 9.
    assert race.steps() == {
        "000": 27, "001": 3, "002": 27, "003": 3, "004": 3, "005": 9, "006": 3, "007": 3, "008": 3,
    }  # fmt: skip
    starts = [place for place, line in enumerate(race.log) if line.startswith("start")]
    promotions = [place for place, line in enumerate(race.log) if line.startswith("promote")]
    assert max(starts) < min(promotions)
    reasons = [d.reason for d in record.trials["002"].decisions if d.action == "promote"]
    assert reasons == [
        "among the best 2 of 8 that reached rung 3", "the best of 2 that reached rung 9",
    ]  # fmt: skip


def test_halving_with_slots_ends_as_it_does_with_one() -> None:
    xs = [3.0, 8.0, 1.0, 2.0, 7.0, 4.0, 5.0, 6.0]
    alone, four = Race(by_x, xs, scheduler="halving"), Race(by_x, xs, scheduler="halving", slots=4)
    alone.run()
    four.run()
    assert alone.steps() == four.steps()


def test_asha_stop_ends_the_worse_and_never_pauses() -> None:
    race = Race(by_x, [5.0, 9.0, 1.0, 8.0], num_trials=5, scheduler="asha_stop")
    record = race.run()
    assert not any(line.startswith("PAUSED") for line in race.log)
    assert record.trials["001"].state is TrialState.COMPLETED  # better than the default alone
    assert ended(race)["003"] == ("PRUNED", 3)
    assert record.trials["003"].decisions[-1].reason == "3rd of 3 at 3, not among the best 1"


def test_median_stops_what_is_worse_than_half_of_the_others() -> None:
    every = tuple(range(3, 27, 3))
    race = Race(by_x, [3.0, 4.0, 1.0, 9.0], num_trials=5, scheduler="median", rungs=every)
    race.run()
    # 003 (x = 1) meets three others, 0, 3 and 4, whose median is 3.
    assert ended(race)["003"] == ("PRUNED", 3)
    assert ended(race)["004"] == ("COMPLETED", 27)


@pytest.mark.parametrize("scheduler", ["asha", "halving", "asha_stop", "median"])
def test_feasible_trials_go_on_before_better_ones_outside_of_a_bound(scheduler: str) -> None:
    """x above 4 breaks a soft bound; only 4 and below may ever be first at a rung."""

    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": params["x"] / 20}

    bounds = (Bound("eval/kl", max=0.2, hard=False),)
    xs = [9.0, 4.0, 8.0, 1.0, 2.0, 7.0, 3.0, 6.0]
    rungs = tuple(range(3, 27, 3)) if scheduler == "median" else (3, 9)
    race = Race(curve, xs, scheduler=scheduler, bounds=bounds, rungs=rungs)
    record = race.run()
    outside = [trial for trial in record.trials.values() if trial.params["x"] > 4]
    assert record.trials["002"].step == 27
    if scheduler in ("asha", "halving"):
        assert max(trial.step for trial in outside) < 27


def test_the_nearest_to_the_bound_goes_on_where_none_is_inside() -> None:
    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": 0.3 + params["x"] / 20}

    bounds = (Bound("eval/kl", max=0.2, hard=False),)
    race = Race(curve, [9.0, 5.0, 1.0], num_trials=4, scheduler="halving", bounds=bounds)
    race.run()
    assert race.steps() == {"000": 27, "001": 3, "002": 3, "003": 27}


@pytest.mark.parametrize("scheduler", ["asha", "halving", "asha_stop"])
def test_the_default_configuration_is_never_cut(scheduler: str) -> None:
    race = Race(by_x, scheduler=scheduler)
    race.run()
    assert ended(race)["000"] == ("COMPLETED", 27)


def test_a_report_that_passes_two_rungs_at_once_enters_both() -> None:
    race = Race(by_x, [1.0, 2.0, 3.0], every=9, num_trials=4, scheduler="halving")
    race.run()
    assert race.steps() == {"000": 27, "001": 9, "002": 9, "003": 27}


def test_less_is_better_where_the_objective_says_so() -> None:
    def loss(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/loss": params["x"]}

    race = Race(
        loss, [3.0, 1.0, 2.0], num_trials=4, scheduler="halving",
        objective=Objective("eval/loss", "min"), rungs=(3,),
    )  # fmt: skip
    race.run()
    assert race.steps() == {"000": 27, "001": 3, "002": 27, "003": 3}


@pytest.mark.parametrize("scheduler", ["asha", "halving"])
def test_the_default_takes_nobodys_place(scheduler: str) -> None:
    """It leads every rung here, and still one of the others comes to the end."""
    race = Race(lambda params, step: {"eval/reward": -params["x"]}, [1.0, 2.0, 3.0], num_trials=4,
                scheduler=scheduler)  # fmt: skip
    race.run()
    assert race.steps() == {"000": 27, "001": 27, "002": 3, "003": 3}


@pytest.mark.parametrize("scheduler", ["asha", "halving"])
def test_a_promoted_trial_that_breaks_a_bound_leaves_its_place_to_the_next(scheduler: str) -> None:
    """The better x is, the sooner its KL is out of bounds: only 1 and 2 can come to the end."""

    def hacking(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": 0.05 if step <= 3 else params["x"] / 11}

    xs = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    race = Race(hacking, xs, num_trials=10, scheduler=scheduler, bounds=(KL,), rungs=(3,))
    race.run()
    steps = race.steps()
    assert steps["008"] == 27
    assert steps["001"] == 6
