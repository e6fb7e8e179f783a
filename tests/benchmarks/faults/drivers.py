"""Rows 1, 2, 3 and 17: the driver dies."""

from __future__ import annotations

import random
import signal
import time

from easyds_tune.journal.events import StartEvent
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place, Running
from tests.benchmarks.faults.replays import replay_problem


def killed_and_resumed(place: Place, seed: int) -> Outcome:
    """Row 1: SIGKILL mid-sweep; one slot trained for real, two slots on learning curves."""
    reference = our.trained_reference(place, seed=seed)
    moment = random.Random(seed).randrange(
        2, sum(len(t.reports) for t in reference.trials.values())
    )
    first = our.sweep(place, our.write_spec(place, seed=seed))
    first.wait_for(lambda: our.count(place, "report") >= moment, our.SECONDS, "reports")
    first.kill()
    again = our.resume(place)
    our.finish(again)
    seconds = our.seconds_to_report(place, again.started)
    problems = [
        our.difference(our.record(place), reference),
        *our.repeated(our.entries(place))[:1],
        replay_problem(place, our.NAME),
        _two_slots(place, seed),
    ]
    return our.verdict(
        problems,
        f"killed after report {moment}: decisions and metrics equal those of the uninterrupted "
        "run; the order recorded with two slots replays identically",
        seconds,
    )


def _two_slots(place: Place, seed: int) -> str:
    spec = our.write_simulated_spec(place, "two", seed=seed, resources__max_concurrent=2)
    moment = random.Random(seed).randrange(20, 80)
    first = our.simulate(place, spec)
    first.wait_for(lambda: our.count(place, "report", "two") >= moment, our.SECONDS, "reports")
    first.kill()
    our.finish(our.resume(place, "two"))
    if len(our.record(place, "two").trials) != 24:
        return f"two slots: {len(our.record(place, 'two').trials)} trials instead of 24"
    return replay_problem(place, "two")


def killed_and_restored_by_ray(place: Place, seed: int) -> Outcome:
    """Row 1 with Ray Tune: one slot, as without the kill?"""
    whole = Place(place.folder / "whole")
    whole.folder.mkdir()
    place.running.append(reference := ray.start_ray(whole, seed=seed))
    ray.finish(reference)
    moment = random.Random(seed).randrange(14, 30)
    first = ray.start_ray(place, seed=seed)
    first.wait_for(lambda: len(ray.log(place, "report")) >= moment, ray.SECONDS, "reports")
    killed = first.kill()
    before = ray.log(place, "result")[-1]["at_rungs"]
    again = ray.start_ray(place, seed=seed, restore=True)
    ray.finish(again)
    after = ray.log(place, "result", since=killed)
    same = ray.furthest(place) == ray.furthest(whole)
    trials = "the same trials as" if same else "other trials or lengths than"
    rungs = f"trials at its rungs {before} before, {after[0]['at_rungs'] if after else '?'} after"
    return Outcome(
        same,
        f"{trials} uninterrupted; {rungs}",
        ray.seconds_to(place, again, "report"),
    )


def short_trials(place: Place, seed: int) -> Outcome:
    """Row 2: two kills among sixteen trials of one step each."""
    changes = {
        "seed": seed,
        "training__max_steps": 1,
        "training__eval_steps": 1,
        "search__num_trials": 16,
        "scheduler__type": "none",
    }
    moments = sorted(random.Random(seed).sample(range(2, 15), 2))
    running = our.sweep(place, our.write_spec(place, **changes))
    seconds = None
    for moment in moments:
        running.wait_for(lambda at=moment: our.count(place, "report") >= at, our.SECONDS, "reports")
        running.kill()
        running = our.resume(place)
    our.finish(running)
    seconds = our.seconds_to_report(place, running.started)
    found = our.record(place)
    configurations = {str(trial.params) for trial in found.trials.values()}
    starts = sum(isinstance(entry.event, StartEvent) for entry in our.entries(place))
    problems = [
        ""
        if our.all_completed(found, 16)
        else f"states {[t.state for t in found.trials.values()]}",
        "" if len(configurations) == 16 else f"{len(configurations)} configurations",
        *our.repeated(our.entries(place))[:2],
        *our.orphans(place)[:2],
    ]
    return our.verdict(
        problems,
        f"killed after reports {moments}: 16 configurations, each completed once "
        f"({starts} starts), no orphan folder",
        seconds,
    )


def short_trials_by_ray(place: Place, seed: int) -> Outcome:
    """Row 2 with Ray Tune."""
    settings = {"samples": 16, "steps": 1, "seconds": 0.05, "scheduler": "fifo", "seed": seed}
    moment = random.Random(seed).randrange(3, 13)
    first = ray.start_ray(place, **settings)
    first.wait_for(lambda: len(ray.log(place, "report")) >= moment, ray.SECONDS, "reports")
    first.kill()
    again = ray.start_ray(place, restore=True, **settings)
    ray.finish(again)
    starts, folders = ray.log(place, "start"), list(ray.folder_of(place).glob("train_*"))
    reports = ray.configs(ray.log(place, "report"))
    once = len(reports) == 16 == len(set(reports)) and len(folders) == 16
    seen = (
        f"{len(starts)} starts, {len(reports)} reports and {len(folders)} trial folders for "
        f"{len(set(reports))} configurations; {len(ray.log(place, 'outcome'))} results"
    )
    return Outcome(once, seen, ray.seconds_to(place, again, "report"))


MOMENTS = ("before", "torn", "after")
"""Where in the writing of an event the driver dies."""


def between_report_and_journal(place: Place, seed: int) -> Outcome:
    """Row 3: the driver dies while it writes down a report, its checkpoint or what follows."""
    reference = our.simulated_reference(place, seed=seed)
    draw = random.Random(seed)
    problems, seconds, told = [], None, []
    for number, event in enumerate(
        ("ReportEvent", "CheckpointEvent", "DecideEvent", "FinishEvent")
    ):
        name, nth = f"sweep-{number}", draw.randrange(3, 14)
        when = MOMENTS[(seed + number) % len(MOMENTS)]
        fault = {"kind": "kill-at-event", "event": event, "nth": nth, "when": when}
        first = our.simulate(
            place, our.write_simulated_spec(place, name, seed=seed), faults=[fault]
        )
        if (code := first.wait(our.SECONDS)) != -signal.SIGKILL:
            problems.append(f"the driver ended with {code} instead of its fault")
        for marker in (place.folder / "faults").iterdir():
            marker.unlink()
        again = our.resume(place, name)
        our.finish(again)
        problems.append(our.difference(our.record(place, name), reference))
        problems += our.repeated(our.entries(place, name))[:1]
        told.append(f"{when} {event[:-5].lower()} {nth}")
        later = [entry.time for entry in our.entries(place, name) if entry.time > again.started]
        seconds = later[0] - again.started
    return our.verdict(
        problems, f"died {', '.join(told)}: nothing told twice, nothing lost", seconds
    )


def between_report_and_state_by_ray(place: Place, seed: int) -> Outcome:
    """Row 3 with Ray Tune: it dies once Optuna's storage was told and Tune's state not yet."""
    settings = {"storage": "sqlite", "seed": seed, "kill_driver_after": 2 + seed}
    first = ray.start_ray(place, **settings)
    first.wait(ray.SECONDS)
    again = ray.start_ray(place, restore=True, **settings)
    code = again.wait(ray.SECONDS)
    done = len(ray.log(place, "outcome"))
    told = ray.log(place, "told")
    twice = len(told) - len({line["trial"] for line in told})
    error = ray.error_of(again)
    seen = f"exit {code}, {done} results, {twice} told twice" + (f", {error}" if error else "")
    return Outcome(code == 0 and done == 8 and not twice, seen)


def orphans_gone(place: Place, seed: int) -> Outcome:
    """Row 17: the driver dies; its worker goes on, is stopped, or sleeps without noticing."""
    kind = ("busy", "sigstop", "sleep")[seed % 3]
    faults = [] if kind == "busy" else [{"kind": kind, "step": 3, "times": 1}]
    long = {"training__max_steps": 40} if kind == "busy" else {}
    first = our.sweep(
        place,
        our.write_spec(place, search__num_trials=2, scheduler__type="none", **long),
        faults=faults,
    )
    first.wait_for(lambda: our.count(place, "report") >= 1, our.SECONDS, "a report")
    if faults:
        first.wait_for(lambda: our.fault_times(place), our.SECONDS, "the fault")
    killed = first.kill()
    again = our.resume(place)
    last = _last_seen(first)
    our.finish(again)
    started = next(
        entry.time
        for entry in our.entries(place)
        if isinstance(entry.event, StartEvent) and entry.time > again.started
    )
    overlap = last - started
    problems = [f"a worker of the dead sweep lived {overlap:.1f} s into the next one's trial"]
    return our.verdict(
        problems if overlap > 0 else [],
        f"orphan ({kind}) gone {last - killed:.1f} s after the kill, "
        f"{-overlap:.1f} s before its slot was taken again",
        our.seconds_to_report(place, again.started),
    )


def orphans_by_ray(place: Place, seed: int) -> Outcome:
    """Row 17 with Ray Tune."""
    kind = ("busy", "sigstop", "sleep")[seed % 3]
    fault = {} if kind == "busy" else {"kind": kind, "step": 3}
    first = ray.start_ray(place, steps=30, fault=fault, samples=2, scheduler="fifo")
    first.wait_for(lambda: len(ray.log(place, "report")) >= 2, ray.SECONDS, "reports")
    if fault:
        first.wait_for(lambda: ray.log(place, "fault"), ray.SECONDS, "the fault")
    killed = first.kill()
    again = ray.start_ray(place, steps=30, restore=True, samples=2, scheduler="fifo")
    last = _last_seen(first)
    ray.finish(again)
    started = ray.log(place, "start", since=killed)[0]["time"]
    overlap = last - started
    seen = (
        f"orphan ({kind}) gone {last - killed:.1f} s after the kill, "
        + (f"{overlap:.1f} s after" if overlap > 0 else f"{-overlap:.1f} s before")
        + " the restored run started its first trial"
    )
    return Outcome(overlap <= 0, seen, ray.seconds_to(place, again, "start"))


def _last_seen(dead: Running) -> float:
    """When the last worker of a dead driver was seen, in unix seconds; it gets a minute."""
    last = time.time()
    end = last + 60
    while dead.workers() and time.time() < end:
        last = time.time()
        time.sleep(0.05)
    return last
