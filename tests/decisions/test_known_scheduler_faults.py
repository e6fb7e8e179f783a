"""What Ray's ASHA does wrong, each beside what ours does; the searcher's faults have a file too.

A test drives the real ASHAScheduler the way Tune does, one report at a time, and our decider with
the same reports.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import TrialState
from easyds_tune.results.finals import find_best
from tests.decisions.racing import KL, Race, by_x


class Stock:
    """Ray's ASHA with rungs at 3 and 9 of 27 steps."""

    def __init__(self) -> None:
        self.scheduler = ASHAScheduler(
            time_attr="global_step", metric="eval/reward", mode="max", grace_period=3,
            reduction_factor=3, max_t=27,
        )  # fmt: skip
        self.trials: dict[str, Any] = {}

    def report(self, name: str, step: int, reward: float, **more: float) -> str:
        if name not in self.trials:
            self.trials[name] = SimpleNamespace(trial_id=name, config={}, stub=False)
            self.scheduler.on_trial_add(None, self.trials[name])
        result = {"global_step": step, "eval/reward": reward, **more}
        return str(self.scheduler.on_trial_result(None, self.trials[name], result))


def test_a_trial_of_nan_is_never_stopped() -> None:
    stock = Stock()
    for name in ("a", "b", "c"):
        stock.report(name, 3, 1.0)
    steps = (3, 9, 12, 24)
    assert {stock.report("nan", step, math.nan) for step in steps} == {TrialScheduler.CONTINUE}

    race = Race(lambda params, step: {"eval/reward": math.nan}, num_trials=1)
    trial = race.run().trials["000"]
    assert (trial.state, trial.step) == (TrialState.DIVERGED, 3)


def test_the_first_to_arrive_pass_however_bad_they_are() -> None:
    """One slot, worse trials first: Ray's lets every one of them run on to the next rung."""
    stock = Stock()
    passed = [stock.report(str(n), 3, float(n)) for n in range(1, 9)]
    assert passed == [TrialScheduler.CONTINUE] * 8

    race = Race(by_x, [float(n) for n in range(1, 9)], scheduler="halving")
    race.run()
    assert sum(step > 3 for name, step in race.steps().items() if name != "000") == 2


def test_a_restarted_scheduler_has_forgotten_its_rungs() -> None:
    """Tune saves no scheduler: what goes on after a restart is a new one."""
    stock = Stock()
    for n in range(6):
        stock.report(str(n), 3, 5.0 + n)
    assert stock.report("poor", 3, 0.0) == TrialScheduler.STOP
    assert Stock().report("poor", 3, 0.0) == TrialScheduler.CONTINUE

    race = Race(by_x, [5.0, 6.0, 7.0, 8.0, 9.0, 0.5], num_trials=7, scheduler="asha_stop")
    race.run(until=20.0)
    decider = race.make_decider(race.replayed())
    race.decider, race.record = decider, decider.record
    race.append_trial("poor", {"x": -1.0})
    assert race.report("poor", 3, {"eval/reward": -1.0}).action == "stop"


def test_bounds_are_unknown_and_the_hacker_wins() -> None:
    stock = Stock()
    for n in range(3):
        stock.report(str(n), 3, 1.0 + n, **{"eval/kl": 0.1})
    assert stock.report("hacker", 3, 9.0, **{"eval/kl": 2.0}) == TrialScheduler.CONTINUE

    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": params["x"] / 20}

    for bound in (KL, Bound("eval/kl", max=0.2, hard=False)):
        race = Race(curve, [9.0, 1.0, 3.0, 2.0], num_trials=5, bounds=(bound,))
        best = find_best(race.run())
        assert best is not None
        assert best.trial.params == {"x": 3.0}


def test_an_out_of_bound_trial_takes_a_place_at_a_rung() -> None:
    """Six good scores outside of the bound push the only useful trial out."""
    stock = Stock()
    for n in range(6):
        stock.report(f"hacker {n}", 3, 9.0, **{"eval/kl": 2.0})
    assert stock.report("useful", 3, 1.0, **{"eval/kl": 0.1}) == TrialScheduler.STOP

    def curve(params: dict[str, Any], step: int) -> dict[str, float]:
        return {"eval/reward": params["x"], "eval/kl": 2.0 if params["x"] > 5 else 0.1}

    soft = (Bound("eval/kl", max=0.2, hard=False),)
    xs = [9.0, 8.0, 7.0, 6.0, 5.5, 5.2, 1.0]
    race = Race(curve, xs, num_trials=8, scheduler="asha_stop", bounds=soft)
    race.run()
    assert race.steps()["007"] == 27
