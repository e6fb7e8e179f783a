"""Rows 16 and 20: one name for two sweeps, and names that lead elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place


def two_sweeps_of_one_name(place: Place, seed: int) -> Outcome:
    """While a sweep runs, it is started and resumed once more."""
    spec = our.write_spec(place, seed=seed, training__max_steps=12, search__num_trials=3)
    first = our.sweep(place, spec)
    first.wait_for(lambda: our.count(place, "report") >= 1, our.SECONDS, "a report")
    problems = []
    for again in (our.sweep(place, spec), our.sweep(place, spec, "--resume"), our.resume(place)):
        code = again.wait(our.SECONDS)
        if code != 2:
            problems.append(f"{again.process.args[3:]} gave {code}: {again.text[-200:]}")  # type: ignore[index]
    if first.process.poll() is not None:
        problems.append("the first sweep had ended before the others were refused")
    our.finish(first)
    problems += our.repeated(our.entries(place))[:1]
    problems.append("" if our.record(place).final else "the first sweep has no end")
    return our.verdict(
        problems, "sweep, sweep --resume and resume refused with 2; the first one undisturbed"
    )


def two_ray_sweeps_of_one_name(place: Place, seed: int) -> Outcome:
    """Row 16 with Ray Tune."""
    first = ray.start_ray(place, seed=seed, samples=3)
    first.wait_for(lambda: len(ray.log(place, "report")) >= 1, ray.SECONDS, "a report")
    second = ray.start_ray(place, seed=seed + 100, samples=3)
    codes = [first.wait(ray.SECONDS), second.wait(ray.SECONDS)]
    folder = ray.folder_of(place)
    trials = len(list(folder.glob("train_*")))
    states = len(list(folder.glob("experiment_state-*.json")))
    started = len(set(ray.configs(ray.log(place, "start"))))
    return Outcome(
        codes[1] != 0,
        f"exits {codes}: {started} trials of two sweeps ran, {trials} trial folders and {states} "
        "experiment states in one folder",
    )


NAMES = ("../x", "a/../../x", "", ".", "x" * 300, ".hidden", "a b", "-x")
ABSOLUTE = "absolute"


def names_that_lead_elsewhere(place: Place, seed: int) -> Outcome:
    """Row 20: each is refused with 2 and writes nothing."""
    spec = our.write_simulated_spec(place, seed=seed)
    before = _everything(place.folder.parent)
    problems = []
    for name in (*NAMES, str(place.folder / ABSOLUTE)):
        running = our.simulate(place, spec, "--set", f"name='{name}'")
        code = running.wait(our.SECONDS)
        if code != 2 or "Traceback" in running.text:
            problems.append(f"name {name[:20]!r} gave {code}: {running.text[-100:]}")
    written = _everything(place.folder.parent) - before
    written = {path for path in written if not path.name.startswith(("output-", "faults"))}
    if written:
        problems.append(f"written: {sorted(map(str, written))[:3]}")
    return our.verdict(problems, f"{len(NAMES) + 1} names refused with 2, nothing written")


def _everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def ray_names_that_lead_elsewhere(place: Place, seed: int) -> Outcome:
    """Row 20 with Ray Tune."""
    seen, outside = [], False
    for name in ("../x", str(place.folder / ABSOLUTE), "", "x" * 300):
        running = ray.start_ray(place, name=name, samples=1, steps=1, seed=seed)
        started = time.time()
        code = running.wait(ray.SECONDS)
        made = [path for path in (place.folder / "x", place.folder / ABSOLUTE) if path.exists()]
        wrote = any(path.stat().st_mtime > started - 1 for path in made)
        outside = outside or wrote
        shown = {"": "empty"}.get(name, name if len(name) < 9 else f"{len(name)} letters")
        shown = "absolute" if name.startswith("/") else shown
        seen.append(f"{shown}: exit {code}{', wrote outside' if wrote else ''}")
    return Outcome(not outside, "; ".join(seen))
