"""Rows 7 and 8: SIGINT and SIGTERM, to the whole process group as `timeout` sends them."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial

from easyds_tune.journal.events import TrialState
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
STATED_SECONDS = 60
"""In which running trials have written their checkpoints."""


def signalled(place: Place, seed: int, signum: signal.Signals) -> Outcome:
    """The first signal ends the sweep in order; what it prints is typed, and the sweep goes on."""
    reference = our.trained_reference(place, seed=seed)
    first = our.sweep(place, our.write_spec(place, seed=seed))
    first.wait_for(lambda: our.count(place, "report") >= 2, our.SECONDS, "reports")
    sent = time.time()
    os.killpg(first.process.pid, signum)
    code = first.wait(our.SECONDS)
    seconds = time.time() - sent
    found = our.record(place)
    states = [trial.state for trial in found.trials.values()]
    to_type = f"easyds-tune resume {our.NAME}"
    problems = [
        "" if code == CODES[signum] else f"exit {code}",
        "" if seconds < STATED_SECONDS else f"ended after {seconds:.0f} s",
        "" if TrialState.RUNNING not in states else "a trial stayed RUNNING",
        "" if TrialState.INTERRUPTED in states else "no trial is INTERRUPTED",
        "" if to_type in first.text else f"{to_type!r} was not printed",
        "a traceback was printed" if "Traceback" in first.text else "",
        f"workers left: {left}" if (left := first.workers()) else "",
    ]
    newest = [t.resumable()[:1] for t in found.trials.values() if t.state is TrialState.INTERRUPTED]
    again = our.resume(place)
    our.finish(again)
    problems.append(our.difference(our.record(place), reference))
    return our.verdict(
        problems,
        f"exit {code} after {seconds:.1f} s, INTERRUPTED with a checkpoint at {newest}, the "
        "command to go on printed; resumed to the same decisions and metrics",
        our.seconds_to_report(place, again.started),
    )


def signalled_ray(place: Place, seed: int, signum: signal.Signals) -> Outcome:
    """The same with Ray Tune."""
    first = ray.start_ray(place, seed=seed)
    first.wait_for(lambda: len(ray.log(place, "report")) >= 12, ray.SECONDS, "reports")
    os.killpg(first.process.pid, signum)
    code = first.wait(ray.SECONDS)
    state = json.loads(ray.newest(place, "experiment_state-*.json").read_text(encoding="utf-8"))
    trials = [json.loads(text)["status"] for text, _ in state["trial_data"]]
    again = ray.start_ray(place, seed=seed, restore=True)
    back = ray.end(again)
    done = len(ray.log(place, "outcome", since=again.started))
    return Outcome(
        code == CODES[signum],
        f"exit {code}; trials are {', '.join(trials)}; restored: {back}, {done} of 8 results",
        ray.seconds_to(place, again, "report"),
    )


interrupted = partial(signalled, signum=signal.SIGINT)
interrupted_ray = partial(signalled_ray, signum=signal.SIGINT)
terminated = partial(signalled, signum=signal.SIGTERM)
terminated_ray = partial(signalled_ray, signum=signal.SIGTERM)
