"""Row 15: the disk is full. Needs root, for a file system of 3 MB."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from easyds_tune.journal.events import TrialState
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place, Unseen
from tests.small_disk import fill

LEFT_BYTES = 2**20
"""Less than the 1.9 MB of a checkpoint, and enough for the journal."""

PATIENCE_SECONDS = 20
"""A sweep that tried again at once would have met the full disk again by then."""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of its own; raises Unseen where this process may mount none."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise Unseen(f"no file system of {size} could be mounted: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def make_room(folder: Path, size: str) -> None:
    """The same file system, larger."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def full_disk(place: Place, seed: int) -> Outcome:
    """Once the second trial runs, others leave less than its checkpoint takes; then there is room.

    The disk is not full by itself: of trials that have ended, hardly anything stays on it.
    """
    with small_disk(place.folder / "results", "3m") as results:
        spec = our.write_spec(
            place,
            seed=seed,
            training__eval_steps=6,
            search__num_trials=3,
            scheduler__type="none",
        )
        running = our.sweep(place, spec)
        running.wait_for(lambda: our.count(place, "start") >= 2, our.SECONDS, "the second trial")
        fill(results, leave=LEFT_BYTES)
        running.wait_for(lambda: our.count(place, "finish") >= 2, our.SECONDS, "the full disk")
        running.wait_for(lambda: _tells(place, running.text), our.SECONDS, "word of the full disk")
        time.sleep(PATIENCE_SECONDS)
        status = our.easyds(place, "status", our.NAME)
        problems = ["" if status.wait(our.SECONDS) == 0 else f"status: {status.text[-200:]}"]
        problems.append("" if "COMPLETED" in status.text else "the finished trial is not shown")
        message = _tells(place, running.text)
        failures = sum(len(trial.failures) for trial in our.record(place).trials.values())
        problems.append("" if failures == 1 else f"{failures} trials met the full disk, not one")
        make_room(results, "64m")
        roomy = time.time()
        exits = running.process.poll()
        if exits is not None:
            running = our.resume(place)
        our.finish(running)
        found = our.record(place)
        states = [trial.state for trial in found.trials.values()]
        problems.append("" if states == [TrialState.COMPLETED] * 3 else f"states {states}")
        problems += our.orphans(place)[:2]
        how = "paused, and went on by itself" if exits is None else f"exit {exits}, resumed"
        return our.verdict(
            problems,
            f"{how} once there was room; said: {message[:160]}; "
            "finished results readable meanwhile",
            our.seconds_to_report(place, roomy),
        )


def _tells(place: Place, text: str) -> str:
    """What is said of the disk, on the screen or in the journal; empty if nothing."""
    said = text.splitlines() + [line.get("text", "") for line in our.lines(place)]
    words = ("the disk is full", "until there is room", "no room")
    return next((line for line in said if any(word in line for word in words)), "")


def full_disk_in_ray(place: Place, seed: int) -> Outcome:
    """Row 15 with Ray Tune: checkpoints of 0.3 MB."""
    with small_disk(place.folder / "ray", "3m"):
        running = ray.start_ray(place, seed=seed, checkpoint_bytes=300_000)
        code = running.wait(ray.SECONDS)
        outcomes = ray.log(place, "outcome")
        errors = sum(line["error"] != "None" for line in outcomes)
        seen = (
            f"exit {code}, {len(outcomes)} of 8 results, {errors} in ERROR {ray.error_of(running)}"
        )
        make_room(place.folder / "ray", "64m")
        again = ray.start_ray(place, seed=seed, checkpoint_bytes=300_000, restore=True)
        back = ray.end(again)
        done = ray.log(place, "outcome", since=again.started)
        good = sum(line["error"] == "None" for line in done)
        return Outcome(
            code == 0 and good == 8,
            f"{seen}; with room again, restored: {back}, {good} of 8 without error "
            f"{ray.error_of(again)}",
        )
