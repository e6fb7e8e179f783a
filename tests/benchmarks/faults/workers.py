"""Rows 9, 10 and 18: a worker dies, dies beside a damaged checkpoint, or hangs."""

from __future__ import annotations

from easyds_tune.journal.events import ReportEvent, TrialState
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place

HANG_SECONDS = 20
HANGS = ("sleep", "sigstop", "sleep")


def faulty_run(place: Place, seed: int, fault: our.Fault, error: str, **changes: object) -> Outcome:
    """A trial fails once; the sweep ends as one in which nothing happened."""
    reference = our.trained_reference(place, seed=seed)
    running = our.sweep(place, our.write_spec(place, seed=seed, **changes), faults=[fault])
    our.finish(running)
    found = our.record(place)
    fired = our.fault_times(place)
    failed = [trial for trial in found.trials.values() if trial.failures]
    types = [failure.error.type for trial in failed for failure in trial.failures]
    problems = [
        "" if len(fired) == 1 else f"the fault fired {len(fired)} times",
        "" if types == [error] else f"failures {types} instead of one {error}",
        our.difference(found, reference),
        *our.orphans(place)[:2],
    ]
    seconds = our.seconds_to_report(place, fired[0], failed[0].id) if fired and failed else None
    seen = (
        f"{fault['kind']} before step {fault['step']} of trial {failed[0].id}: tried again from "
        "its checkpoint; decisions and metrics as without"
        if failed
        else ""
    )
    return our.verdict(problems, seen, seconds)


def killed_worker(place: Place, seed: int) -> Outcome:
    """Row 9: a worker kills itself with SIGKILL."""
    fault = {"kind": "sigkill", "step": 3 + seed % 4, "times": 1}
    return faulty_run(place, seed, fault, "WorkerDied")


def killed_ray_worker(place: Place, seed: int) -> Outcome:
    """Row 9 with Ray Tune as it ships."""
    running = ray.start_ray(place, seed=seed, fault={"kind": "sigkill", "step": 3 + seed % 4})
    running.wait(ray.SECONDS)
    errors = [line["error"] for line in ray.log(place, "outcome") if line["error"] != "None"]
    seen = f"{len(errors)} of {len(ray.log(place, 'outcome'))} trials in ERROR: {errors[0][:60]}…"
    return Outcome(not errors, seen if errors else "no trial in error")


def damaged_checkpoint(place: Place, seed: int) -> Outcome:
    """Row 10: the newest checkpoint is cut in half, and the worker dies."""
    folder = str(our.folder_of(place) / "trials")
    fault = {"kind": "damage", "step": 5 + seed % 2, "times": 1, "folder": folder}
    outcome = faulty_run(place, seed, fault, "WorkerDied")
    reports = [
        (entry.event.trial, entry.event.step)
        for entry in our.entries(place)
        if isinstance(entry.event, ReportEvent)
    ]
    again = sorted({report for report in reports if reports.count(report) > 1})
    said = [note for note in our.record(place).notes if "damaged" in note or "whole" in note]
    problems = [
        "" if outcome.passed else outcome.seen,
        "" if [step for _, step in again] == [4] else f"steps reported again: {again}",
        "" if said else "no note tells of the damaged checkpoint",
    ]
    return our.verdict(
        problems,
        f"trial {again[0][0] if again else '?'} went on from step 2, before the damaged step 4, "
        "and the journal says so; decisions and metrics as without",
        outcome.recovery_seconds,
    )


def damaged_ray_checkpoint(place: Place, seed: int) -> Outcome:
    """Row 10 with Ray Tune, told to retry three times."""
    fault = {"kind": "damage", "step": 5 + seed % 2}
    running = ray.start_ray(place, seed=seed, fault=fault, max_failures=3)
    running.wait(ray.SECONDS)
    trial = ray.log(place, "fault")[0]["trial"]
    loads = [
        line["path"].rsplit("/", 1)[-1] for line in ray.log(place, "load") if line["trial"] == trial
    ]
    errors = [line["error"] for line in ray.log(place, "outcome") if line["error"] != "None"]
    return Outcome(
        not errors,
        f"retries loaded {', '.join(loads) or 'nothing'}; {len(errors)} trials in ERROR"
        + (f": {errors[0][:80]}…" if errors else ""),
    )


def hanging_trial(place: Place, seed: int) -> Outcome:
    """Row 18: a trial sleeps for ever, or is stopped."""
    fault = {"kind": HANGS[seed % 3], "step": 3 + seed % 3, "times": 1}
    return faulty_run(place, seed, fault, "Hung", resources__hang_seconds=HANG_SECONDS)


def hanging_ray_trial(place: Place, seed: int) -> Outcome:
    """Row 18 with Ray Tune: five times as long as ours takes to notice."""
    fault = {"kind": HANGS[seed % 3], "step": 3 + seed % 3}
    running = ray.start_ray(place, seed=seed, fault=fault, max_failures=3, steps=6)
    running.wait_for(lambda: ray.log(place, "fault"), ray.SECONDS, "the fault")
    before = len(ray.log(place, "report"))
    patience = 5 * HANG_SECONDS
    try:
        running.wait_for(lambda: len(ray.log(place, "report")) > before + 1, patience, "a report")
    except Exception:
        return Outcome(False, f"no trial went on within {patience} s of the hang; no time-out")
    return Outcome(True, "it went on")


def states(place: Place) -> dict[str, TrialState]:
    """State of each trial."""
    return {name: trial.state for name, trial in our.record(place).trials.items()}
