"""What one more trial costs on a warm worker before its first step, at 64 and at 10,000 pairs.

A zero-step trial builds the adapter, the DeepSpeed engine and TRL's trainer, reports once and
takes them down again. The number with the checkpoint is what a sweep pays; the one without it is
the set-up alone. Promised: at most 0.3 s at 64 pairs, at most 0.1 s more at 10,000.
"""

from __future__ import annotations

import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

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

SIZES = (64, 10_000)
WARM_UP = 3


def main() -> None:
    """Open one workbench a size, then run zero-step trials on them in turn."""
    arguments = parser(__doc__, rounds=20).parse_args()
    import torch

    from easyds_tune.spec.sweep import SweepSpec
    from easyds_tune.trial.quiet import quiet_libraries
    from easyds_tune.trial.records import SweepRecords, read_records
    from easyds_tune.trial.workbench import Workbench

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
    whole: dict[int, list[float]] = {size: [] for size in SIZES}
    set_up: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(WARM_UP + arguments.rounds):
            for size in SIZES if turn % 2 else reversed(SIZES):
                total, checkpoint = zero_step_trial(benches[size], sweep, Path(scratch), turn)
                if turn >= WARM_UP:
                    whole[size].append(total)
                    set_up[size].append(total - checkpoint)
    spreads = {
        f"{size:,} pairs, {what}": Spread.of(samples[size])
        for what, samples in (("with its checkpoint", whole), ("without", set_up))
        for size in SIZES
    }
    small, large = (Spread.of(whole[size]).median for size in SIZES)
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
    samples = {"whole_seconds": whole, "without_checkpoint_seconds": set_up}
    write_result(arguments.out, "marginal_cost", targets, samples)


def zero_step_trial(bench: object, sweep: object, scratch: Path, turn: int) -> tuple[float, float]:
    """Seconds of one whole trial, and those of them that its checkpoint took."""
    from easyds_tune.spec.sweep import SweepSpec, trial_spec
    from easyds_tune.trial.run import run_trial
    from easyds_tune.trial.workbench import Workbench

    assert isinstance(bench, Workbench)
    assert isinstance(sweep, SweepSpec)
    # Another rank each time: nothing of the last trial's adapter can serve again.
    spec = trial_spec(sweep, f"{turn:03d}", {"model.lora_r": (4, 8, 16, 32)[turn % 4]})
    started = time.perf_counter()
    (report,) = run_trial(spec, bench, scratch / spec.trial_id)
    return time.perf_counter() - started, report.metrics["time/checkpoint_seconds"]


if __name__ == "__main__":
    main()
