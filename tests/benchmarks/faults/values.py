"""Rows 13 and 14: rewards, losses and KLs that are no numbers."""

from __future__ import annotations

from easyds_tune.decisions.outcome import trial_outcome
from easyds_tune.decisions.told import RAN, tell
from easyds_tune.journal.events import TrialState
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.memory import GREEDY, RATE, STARVING
from tests.benchmarks.faults.place import Outcome, Place

REWARD = [{"metric": "eval/reward", "mode": "max"}]


def not_a_number(place: Place, seed: int) -> Outcome:
    """Row 13: the loss of one trial is NaN for real (learning rate 1e30), another's reward."""
    spec = our.write_spec(
        place,
        seed=seed,
        objective=REWARD,
        search__num_trials=5,
        search__points=[{RATE: 1e30}, {RATE: STARVING}],
        search_space={RATE: {"low": 1e-4, "high": 1e30, "log": True}},
        scheduler__type="none",
        search__sampler="random",
    )
    fault = {"kind": "nan-reward", "when": {"learning_rate": STARVING}}
    our.finish(our.sweep(place, spec, faults=[fault]))
    found = our.record(place)
    problems = []
    for name in ("001", "002"):
        trial = found.trials[name]
        if trial.state is not TrialState.DIVERGED or trial.step > 2 or trial.attempt != 1:
            problems.append(f"{name} is {trial.state} at step {trial.step}, try {trial.attempt}")
        outcome = trial_outcome(trial, found.objectives, found.bounds)
        told = tell("tpe", trial.state, outcome, worst=(0.0,), constrained=True)
        if told.values is not None or told.constraints[RAN] <= 0:
            problems.append(f"the sampler is told {told} of {name}")
    unfit = [found.trials[name].state for name in ("000",)]
    if unfit != [TrialState.COMPLETED] or not found.final or found.final.winner in ("001", "002"):
        problems.append(f"the default is {unfit}, the winner {found.final}")
    return our.verdict(
        problems,
        "NaN loss and NaN reward: DIVERGED at their first evaluation, no retry; told as infeasible",
    )


def not_a_number_in_ray(place: Place, seed: int) -> Outcome:
    """Row 13 with Ray Tune."""
    running = ray.start_ray(place, seed=0, fault={"kind": "nan", "step": 1, "lr_above": 0.3})
    ray.finish(running)
    trial = ray.log(place, "fault")[0]["trial"]
    steps = [line["step"] for line in ray.log(place, "report") if line["trial"] == trial]
    # A stopped trial's last step is taken in, and it is not logged by the trial itself.
    return Outcome(max(steps) < 3, f"the trial went on to step {max(steps)} of 9")


def no_kl(place: Place, seed: int) -> Outcome:
    """Row 14: a bounded KL is NaN in one trial and missing in another."""
    spec = our.write_spec(
        place,
        seed=seed,
        objective=REWARD,
        bounds={"eval/kl": {"max": 5.0}},
        search__num_trials=4,
        search__points=[{RATE: GREEDY}, {RATE: STARVING}],
        scheduler__type="none",
    )
    faults = [
        {"kind": "nan-kl", "when": {"learning_rate": GREEDY}},
        {"kind": "no-kl", "when": {"learning_rate": STARVING}},
    ]
    our.finish(our.sweep(place, spec, faults=faults))
    found = our.record(place)
    states = {name: trial.state for name, trial in found.trials.items()}
    bounded = [name for name, state in states.items() if state is TrialState.BOUNDED]
    problems = [
        "" if bounded == ["001", "002"] else f"states {states}",
        "" if found.final and found.final.winner not in (None, "001", "002") else "one of them won",
        "" if {found.trials[n].step for n in ("001", "002")} == {2} else "not at the first report",
    ]
    return our.verdict(problems, "NaN and missing KL: BOUNDED at the first report, never feasible")


def no_kl_in_ray(place: Place, seed: int) -> Outcome:
    """Row 14 with Ray Tune: there is nothing that a KL could break."""
    running = ray.start_ray(place, seed=0, fault={"kind": "nan-kl", "step": 1, "lr_above": 0.3})
    ray.finish(running)
    trial = ray.log(place, "fault")[0]["trial"]
    steps = [line["step"] for line in ray.log(place, "report") if line["trial"] == trial]
    best = min(ray.log(place, "report"), key=lambda line: line["loss"])
    won = best["trial"] == trial
    return Outcome(
        max(steps) < 3, f"ignored: the trial went on to step {max(steps)}{' and is the best' * won}"
    )
