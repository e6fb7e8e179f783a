"""Eight DPO trials of 12 steps, two at a time: warm workers, fresh actors, Ray's own nesting.

(a) the sweep as a user runs it, whose workers serve one trial after another; (b) the same sweep
with a fresh actor a trial; (c) Ray's documented way, a TorchTrainer inside a Tune function. Ray
runs once for all of them; timed is what happens on it. All three must train to the same bits.
A step costs the same in all three, so it is kept small (two pairs): compared is what is around it.
Promised: (b) takes at least 3 times as long as (a), (c) at least 6 times.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bare import trl_rows
from harness import (
    REPOSITORY,
    SPREAD_HEADER,
    Spread,
    Target,
    bundled_spec,
    parser,
    ratios,
    show_targets,
    table,
    write_result,
)
from nested import adapter_digest, tune_nested

from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.load import load_sweep_record
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.sweep.cluster import local_ray
from easyds_tune.sweep.run import run_sweep
from easyds_tune.trial.records import read_records

AT_ONCE = 2
LIMITS = {"fresh": 3.0, "nested": 6.0}
"""How many times longer than warm workers each alternative is promised to take."""

Outcomes = dict[str, tuple[float, str]]
"""Trial id -> final training loss and digest of the adapter."""


def main() -> None:
    """Run the three variants in turn, round after round."""
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--steps", type=int, default=12, help="steps of a trial (default 12)")
    arguments.add_argument("--trials", type=int, default=8, help="trials of a sweep (default 8)")
    arguments.add_argument("--batch", type=int, default=2, help="pairs of a step (default 2)")
    arguments.add_argument(
        "--without-nested", action="store_true", help="leave out (c), which takes longest"
    )
    options = arguments.parse_args()
    os.chdir(REPOSITORY)
    sweep = spec_of(options.trials, options.steps, options.batch)
    names = ["warm", "fresh"] if options.without_nested else ["warm", "fresh", "nested"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    outcomes: list[Outcomes] = []
    with tempfile.TemporaryDirectory() as scratch:
        starting = time.perf_counter()
        with local_ray(sweep.resources):
            started = time.perf_counter() - starting
            for turn in range(options.rounds):
                for name in names:
                    folder = Path(scratch) / f"{turn}-{name}"
                    took, outcome = VARIANTS[name](sweep, folder)
                    print(f"round {turn + 1}: {name} {took:.1f} s", file=sys.stderr)
                    seconds[name].append(took)
                    outcomes.append(outcome)
    times = {name: ratios(seconds[name], seconds["warm"]) for name in names[1:]}
    settings = {"trials": options.trials, "steps": options.steps, "batch": options.batch}
    report(options.out, settings, started, seconds, times, outcomes)


def report(
    out: Path,
    settings: dict[str, int],
    start_up: float,
    seconds: dict[str, list[float]],
    times: dict[str, list[float]],
    outcomes: list[Outcomes],
) -> None:
    """Print the table and the verdicts, and write the file."""
    body = [[f"{name}, seconds", *Spread.of(values).row()] for name, values in seconds.items()]
    body += [[f"{name} / warm", *Spread.of(values).row()] for name, values in times.items()]
    print(table(["all trials", *SPREAD_HEADER], body))
    targets = [
        Target(f"{name} / warm", Spread.of(values).median, LIMITS[name], "at least")
        for name, values in times.items()
    ]
    show_targets(targets)
    equal = all(outcome == outcomes[0] for outcome in outcomes)
    print(f"losses and adapters of all runs: {'equal bit for bit' if equal else 'DIFFERENT'}")
    print(f"starting Ray, once: {start_up:.1f} s")
    measured = {
        "settings": settings,
        "ray_start_seconds": start_up,
        "seconds": seconds,
        "ratios": times,
        "bit_equal": equal,
        "outcomes": outcomes,
    }
    write_result(out, "warm_workers", targets, measured)


def spec_of(trials: int, steps: int, batch: int) -> SweepSpec:
    """The sweep: a rank, a learning rate and a β, drawn at random so that all runs draw alike."""
    return SweepSpec.model_validate(
        bundled_spec(
            "dpo",
            training__max_steps=steps,
            training__eval_steps=steps,
            training__per_device_train_batch_size=batch,
            search={"num_trials": trials, "sampler": "random"},
            search_space={
                "algorithm.beta": {"low": 0.05, "high": 0.5, "log": True},
                "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
                "model.lora_r": {"choice": [4, 8, 16, 32]},
            },
            resources={"gpus_per_trial": 0, "max_concurrent": AT_ONCE},
        )
    )


def run_warm(sweep: SweepSpec, folder: Path) -> tuple[float, Outcomes]:
    """The sweep as it is."""
    return _run_sweep(sweep, folder)


def run_fresh(sweep: SweepSpec, folder: Path) -> tuple[float, Outcomes]:
    """The same sweep, but every trial gets a process of its own."""
    from ray import tune

    configure = tune.TuneConfig

    def without_reuse(**options: Any) -> tune.TuneConfig:
        return configure(**{**options, "reuse_actors": False})

    with patch("ray.tune.TuneConfig", without_reuse):
        return _run_sweep(sweep, folder)


def run_nested(sweep: SweepSpec, folder: Path) -> tuple[float, Outcomes]:
    """The trials of the warm sweep of this round, by Ray's nesting."""
    warm = load_sweep_record(sweep_folder(sweep, folder.with_name(f"{folder.name[0]}-warm")))
    pairs = read_records(sweep.data, "dpo", None).train
    trials = [
        trial_spec(sweep, trial.id, trial.params, len(pairs)).model_dump(mode="json")
        for trial in warm.trials.values()
    ]
    rows = trl_rows(pairs)  # type: ignore[arg-type]
    started = time.perf_counter()
    reported = tune_nested(trials, rows, folder, AT_ONCE)
    took = time.perf_counter() - started
    return took, {
        name: (metrics["loss"], metrics["adapter"]) for name, metrics in sorted(reported.items())
    }


VARIANTS = {"warm": run_warm, "fresh": run_fresh, "nested": run_nested}


def _run_sweep(sweep: SweepSpec, folder: Path) -> tuple[float, Outcomes]:
    """Run `run_sweep` on the Ray that runs already; seconds of its trials, and what came out."""
    taken: list[float] = []

    @contextmanager
    def running_ray(*_: Any) -> Iterator[None]:
        started = time.perf_counter()
        yield
        taken.append(time.perf_counter() - started)

    placed = sweep.model_copy(update={"output": sweep.output.model_copy(
        update={"folder": str(folder)})})  # fmt: skip
    with patch("easyds_tune.sweep.cluster.local_ray", running_ray):
        run_sweep(placed, stream=io.StringIO())
    return taken[0], outcomes_of(load_sweep_record(sweep_folder(sweep, folder)), folder)


def sweep_folder(sweep: SweepSpec, output: Path) -> Path:
    """Where a sweep with that output folder left its results."""
    return output / sweep.name


def outcomes_of(record: SweepRecord, output: Path) -> Outcomes:
    """The last loss of every trial, and the digest of its last adapter."""
    outcomes = {}
    for name, trial in sorted(record.trials.items()):
        last = trial.reports[-1]
        adapter = output / record.name / trial.checkpoints[last.step]
        outcomes[name] = (last.metrics["train/loss"], adapter_digest(adapter))
    return outcomes


if __name__ == "__main__":
    main()
