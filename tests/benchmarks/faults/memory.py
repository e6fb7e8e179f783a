"""Rows 11 and 12: memory runs out, on the host and on the device."""

from __future__ import annotations

import math

from easyds_tune.journal.events import TrialState
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place

GIB = 2**30
OWN_BYTES = 3 * GIB
"""What a sweep of two tiny trials takes: driver, Ray, two workers; with some room."""
GREED_BYTES = 4 * GIB
RATE = "training.learning_rate"
GREEDY, STARVING = 7.5e-4, 1.0001e-3
"""Learning rates by which a fault knows its trial; STARVING is as good as the default's."""


def threshold() -> float:
    """A share of the machine's memory just above the base line."""
    numbers = {}
    with open("/proc/meminfo", encoding="utf-8") as stream:
        for line in stream:
            name, value = line.split(":")
            numbers[name] = int(value.split()[0]) * 1024
    used = numbers["MemTotal"] - numbers["MemAvailable"]
    return round((used + OWN_BYTES) / numbers["MemTotal"], 4)


def greedy_trial(place: Place, seed: int) -> Outcome:
    """Row 11: one of two running trials takes the host's memory."""
    fault = {"kind": "greed", "step": 3, "bytes": GREED_BYTES, "when": {"learning_rate": GREEDY}}
    spec = our.write_spec(
        place,
        seed=seed,
        search__num_trials=4,
        search__points=[{RATE: GREEDY}],
        scheduler__type="none",
        resources__max_concurrent=2,
        resources__host_memory=threshold(),
    )
    our.finish(our.sweep(place, spec, faults=[fault]))
    found = our.record(place)
    greedy = found.trials["001"]
    others = {name: trial.state for name, trial in found.trials.items() if name != "001"}
    types = [failure.error.type for failure in greedy.failures]
    problems = [
        "" if greedy.state is TrialState.OUT_OF_MEMORY else f"the greedy trial is {greedy.state}",
        "" if set(others.values()) == {TrialState.COMPLETED} else f"others are {others}",
        *(f"trial {n} failed" for n, t in found.trials.items() if t.failures and n != "001"),
    ]
    return our.verdict(
        problems,
        f"the greedy trial was ended ({', '.join(types)}) and became {greedy.state}; "
        f"{len(others)} others completed",
        our.seconds_to_report(place, our.fault_times(place)[0]),
    )


def greedy_ray_trial(place: Place, seed: int) -> Outcome:
    """Row 11 with Ray Tune and its memory monitor."""
    env = {
        "RAY_memory_usage_threshold": str(threshold()),
        "RAY_memory_monitor_refresh_ms": "250",
        "FAULTS_GREED": str(GREED_BYTES),
    }
    fault = {"kind": "greed", "step": 2, "lr_above": 0.3}
    running = ray.start_ray(place, env, seed=0, slots=2, fault=fault, max_failures=1)
    code = running.wait(ray.SECONDS)
    outcomes = ray.log(place, "outcome")
    errors = sum(line["error"] != "None" for line in outcomes)
    seen = f"exit {code}, {len(outcomes)} of 8 results, {errors} errors {ray.error_of(running)}"
    return Outcome(code == 0 and len(outcomes) == 8 and errors == 1, seen.strip())


def device_out_of_memory(place: Place, seed: int) -> Outcome:
    """Row 12: in one trial only a micro-batch of 2 fits, in another not even one of 1."""
    oom = {"kind": "oom", "step": 3}
    faults = [
        oom | {"above": 2, "when": {"learning_rate": STARVING}},
        oom | {"above": 0, "when": {"learning_rate": GREEDY}},
    ]
    spec = our.write_spec(
        place,
        seed=seed,
        search__num_trials=4,
        search__points=[{RATE: STARVING}, {RATE: GREEDY}],
        scheduler__type="none",
    )
    our.finish(our.sweep(place, spec, faults=faults))
    found = our.record(place)
    default, shrunk, hopeless = (found.trials[name] for name in ("000", "001", "002"))
    curves = [[r.metrics["train/loss"] for r in trial.reports] for trial in (default, shrunk)]
    apart = max((abs(a / b - 1) for a, b in zip(*curves, strict=False)), default=math.inf)
    problems = [
        "" if shrunk.state is TrialState.COMPLETED else f"the shrunk trial is {shrunk.state}",
        "" if len(shrunk.failures) == 1 else f"it failed {len(shrunk.failures)} times",
        "" if [len(c) for c in curves] == [3, 3] and apart < 1e-3 else f"learning curves {curves}",
        "" if hopeless.state is TrialState.OUT_OF_MEMORY else f"micro-batch 1: {hopeless.state}",
        "" if len(hopeless.failures) == 2 else f"micro-batch 1: {len(hopeless.failures)} retries",
        "" if found.final and found.final.winner != "002" else "an infeasible trial won",
    ]
    return our.verdict(
        problems,
        f"micro-batch 4 to 2, same effective batch: COMPLETED, its losses within {apart:.0e} of "
        "those of the whole micro-batch; not even 1 fits: OUT_OF_MEMORY after 4, 2, 1",
        our.seconds_to_report(place, our.fault_times(place)[0], "001"),
    )


def device_out_of_memory_in_ray(place: Place, seed: int) -> Outcome:
    """Row 12 with Ray Tune, told to retry twice."""
    fault = {"kind": "oom", "step": 2, "lr_above": 0.3}
    running = ray.start_ray(place, seed=0, fault=fault, max_failures=2)
    running.wait(ray.SECONDS)
    tries = [(line["trial"], line["step"]) for line in ray.log(place, "fault")]
    errors = sum(line["error"] != "None" for line in ray.log(place, "outcome"))
    return Outcome(
        not errors, f"same configuration, same step, {len(tries)} times; {errors} in ERROR"
    )
