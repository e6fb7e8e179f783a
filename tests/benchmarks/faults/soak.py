"""Two hundred short trials while a script kills workers and the driver at random moments.

    python -m tests.benchmarks.faults.soak --out FOLDER

With one slot the sweep is compared with one that was left alone: the same suggestions, the same
metrics. With two slots the recorded order has to replay. In both, each trial ends exactly once and
every report that was ever in the journal is still there. Exit code 1 where any of that fails.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from easyds_tune.journal.events import ReportEvent, TrialState
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults.place import Place, Running, Unseen, leave_when_told, place_in
from tests.benchmarks.faults.replays import replay_problem
from tests.benchmarks.harness import Target, show_targets, write_result

SHORT = {
    "training__max_steps": 1,
    "training__eval_steps": 1,
    "model__lora_r": 2,
    "judge__max_new_tokens": 2,
    "scheduler__type": "none",
}
LONGEST_PAUSE_SECONDS = 1.5
"""A kill comes up to so long after the report that it was drawn for."""


@dataclass
class Soak:
    """What happened to one sweep."""

    slots: int
    trials: int
    seconds: float = 0.0
    worker_kills: int = 0
    driver_kills: int = 0
    recovery_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Run the soak once with one slot and once with two."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--out", type=Path, required=True, help="folder that gets soak.json")
    arguments.add_argument("--trials", type=int, default=200)
    arguments.add_argument("--kills", type=int, default=22, help="of each sweep, a quarter drivers")
    arguments.add_argument("--slots", type=int, nargs="*", default=[1, 2])
    arguments.add_argument("--seed", type=int, default=0)
    args = arguments.parse_args()
    leave_when_told()
    soaks = []
    with tempfile.TemporaryDirectory(prefix="easyds-soak-") as scratch:
        for slots in args.slots:
            with place_in(Path(scratch) / f"soak-{slots}") as place:
                soaks.append(soak(place, args.trials, args.kills, slots, args.seed))
    targets = [
        target
        for found in soaks
        for target in (
            Target(
                f"{found.slots} slots, kills", found.worker_kills + found.driver_kills,
                min(20, args.kills), "at least",
            ),
            Target(f"{found.slots} slots, problems", len(found.problems), 0, "at most"),
        )
    ]  # fmt: skip
    for found in soaks:
        print(f"{found}")
    show_targets(targets)
    write_result(args.out, "soak", targets, {"soaks": [asdict(found) for found in soaks]})
    return 0 if all(target.met for target in targets) else 1


def soak(place: Place, trials: int, kills: int, slots: int, seed: int) -> Soak:
    """Run a sweep to its end through so many kills, and look at what came out."""
    changes: dict[str, Any] = SHORT | {
        "seed": seed,
        "search__num_trials": trials,
        "resources__max_concurrent": slots,
    }
    found = Soak(slots, trials)
    started = time.monotonic()
    reports = _run_through_kills(place, our.write_spec(place, **changes), found, kills, seed)
    found.seconds = round(time.monotonic() - started, 1)
    found.problems = [
        problem
        for problem in (*_wrong_ends(place, trials), *_lost(place, reports), _other(place, changes))
        if problem
    ]
    return found


def _run_through_kills(
    place: Place, spec: str, found: Soak, kills: int, seed: int
) -> dict[tuple[str, int], float]:
    """Kill after reports drawn at random; every report that was seen on the way, by its KL."""
    draw = random.Random(seed)
    moments = sorted(draw.sample(range(3, found.trials - 5), kills))
    drivers = set(draw.sample(moments, max(1, kills // 4)))
    seen: dict[tuple[str, int], float] = {}
    running = our.sweep(place, spec)
    for moment in moments:
        running.wait_for(lambda at=moment: our.count(place, "report") >= at, our.SECONDS, "reports")
        time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
        if running.process.poll() is not None:
            raise Unseen(f"the sweep ended early: {running.text[-300:]}")
        seen |= _reports(place)
        if moment in drivers:
            running.kill()
            found.driver_kills += 1
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            before = len(_reports(place))
            running = our.resume(place)
            running.wait_for(lambda n=before: len(_reports(place)) > n, our.SECONDS, "a report")
            found.recovery_seconds.append(round(time.time() - running.started, 1))
        else:
            _kill_a_worker(running, draw)
            found.worker_kills += 1
    our.finish(running)
    return seen


def _kill_a_worker(running: Running, draw: random.Random) -> None:
    """SIGKILL to one of the workers; to the next one that comes up where there is none now."""
    while True:
        running.wait_for(running.workers, our.SECONDS, "a worker to kill")
        with suppress(ProcessLookupError, IndexError):
            os.kill(draw.choice(running.workers()), signal.SIGKILL)
            return


def _reports(place: Place) -> dict[tuple[str, int], float]:
    return {
        (line["trial"], line["step"]): line["metrics"]["eval/kl"]
        for line in our.lines(place)
        if line["event"] == "report"
    }


def _wrong_ends(place: Place, trials: int) -> list[str]:
    """Trials that are not completed, and anything that was told twice."""
    found = our.record(place)
    states = [trial.state for trial in found.trials.values()]
    wrong = sorted({state.value for state in states} - {TrialState.COMPLETED.value})
    return [
        "" if len(states) == trials else f"{len(states)} trials",
        f"trials are {', '.join(wrong)}" if wrong else "",
        *our.repeated(our.entries(place))[:3],
        *our.orphans(place)[:3],
    ]


def _lost(place: Place, seen: dict[tuple[str, int], float]) -> list[str]:
    """Reports that were in the journal once and are not now, or say something else."""
    now = {
        (entry.event.trial, entry.event.step): entry.event.metrics["eval/kl"]
        for entry in our.entries(place)
        if isinstance(entry.event, ReportEvent)
    }
    return [f"lost: trial {key[0]} step {key[1]}" for key in seen if now.get(key) != seen[key]][:3]


def _other(place: Place, changes: dict[str, Any]) -> str:
    """How the sweep differs from one that was left alone, or does not replay."""
    problem = replay_problem(place, our.NAME)
    if changes["resources__max_concurrent"] == 1:
        return problem or our.difference(our.record(place), our.trained_reference(place, **changes))
    return problem


if __name__ == "__main__":
    sys.exit(main())
