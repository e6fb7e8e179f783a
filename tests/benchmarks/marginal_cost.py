"""What one more trial costs on a warm worker before its first step, at 64 and at 10,000 pairs.

A zero-step trial builds the adapter, the DeepSpeed engine and TRL's trainer, reports once and
takes them down again. The number with the checkpoint is what a sweep pays; the one without it is
the set-up alone; the processor's time is what is left of it on a machine that others use too.
Promised, with the checkpoint: at most 0.3 s at 64 pairs, at most 0.1 s more at 10,000.
"""

from __future__ import annotations

import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import torch
from harness import (
    SPREAD_HEADER,
    Spread,
    Target,
    bundled_spec,
    parser,
    show_targets,
    table,
    write_result,
)

from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import SweepRecords, read_records
from easyds_tune.trial.run import run_trial
from easyds_tune.trial.workbench import Workbench

SIZES = (64, 10_000)
WHAT = ("with its checkpoint", "without", "processor time")
WARM_UP = 3


def main() -> None:
    """Open one workbench a size, then run zero-step trials on them in turn."""
    arguments = parser(__doc__, rounds=20).parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    sweep = SweepSpec.model_validate(bundled_spec("dpo", training__max_steps=0))
    records = read_records(sweep.data, "dpo", None).train
    benches = {
        size: Workbench(
            sweep,
            SweepRecords(train=list(islice(cycle(records), size)), held_out=[], prompts=[]),
            torch.device("cpu"),
        )
        for size in SIZES
    }
    samples: dict[str, dict[int, list[float]]] = {
        what: {size: [] for size in SIZES} for what in WHAT
    }
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(WARM_UP + arguments.rounds):
            for size in SIZES if turn % 2 else reversed(SIZES):
                measured = zero_step_trial(benches[size], sweep, Path(scratch), turn)
                if turn >= WARM_UP:
                    for what, seconds in zip(WHAT, measured, strict=True):
                        samples[what][size].append(seconds)
    spreads = {
        f"{size:,} pairs, {what}": Spread.of(samples[what][size]) for what in WHAT for size in SIZES
    }
    small, large = (Spread.of(samples["with its checkpoint"][size]).median for size in SIZES)
    targets = [
        Target("one more trial at 64 pairs, seconds", small, 0.3, "at most"),
        Target("more at 10,000 pairs, seconds", large - small, 0.1, "at most"),
    ]
    print(
        table(
            ["seconds per trial", *SPREAD_HEADER],
            [[name, *spread.row()] for name, spread in spreads.items()],
        )
    )
    show_targets(targets)
    write_result(arguments.out, "marginal_cost", targets, {"seconds": samples})


def zero_step_trial(
    bench: Workbench, sweep: SweepSpec, scratch: Path, turn: int
) -> tuple[float, float, float]:
    """Seconds of one trial, in the order of `WHAT`."""
    # Another rank each time: nothing of the last trial's adapter can serve again.
    spec = trial_spec(sweep, f"{turn:03d}", {"model.lora_r": (4, 8, 16, 32)[turn % 4]})
    started, worked = time.perf_counter(), time.process_time()
    (report,) = run_trial(spec, bench, scratch / spec.trial_id)
    whole, processor = time.perf_counter() - started, time.process_time() - worked
    return whole, whole - report.metrics["time/checkpoint_seconds"], processor


if __name__ == "__main__":
    main()
