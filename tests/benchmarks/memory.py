"""Whether a worker's memory stays flat while it serves one trial after another.

A process of its own holds a workbench with the judge, as a worker of a sweep does, and runs
trials of varying rank. Promised: after the first three, resident memory stays within 5 %.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

from harness import EASYDS, MODEL, Target, bundled_spec, parser, show_targets, table, write_result

WARM_UP = 3
RANKS = (8, 32, 4, 16, 64)


def main() -> None:
    """Run the trials in a fresh process and print its memory after each."""
    arguments = parser(__doc__, rounds=30)
    arguments.add_argument("--steps", type=int, default=6, help="steps of a trial (default 6)")
    options = arguments.parse_args()
    pool = multiprocessing.get_context("spawn").Pool(1)
    resident = pool.apply(serve, (options.rounds, options.steps))
    pool.close()
    pool.join()
    settled = resident[WARM_UP - 1]
    later = resident[WARM_UP:] or [settled]
    growth = max(abs(mib / settled - 1) for mib in later)
    print(
        table(
            ["after trial", "rank", "resident MiB", "to trial 3"],
            [
                [str(n), str(rank_of(n - 1)), f"{mib:.1f}", f"{mib / settled - 1:+.1%}"]
                for n, mib in enumerate(resident, start=1)
            ],
        )
    )
    targets = [Target("largest change after the third trial", growth, 0.05, "at most")]
    show_targets(targets)
    write_result(
        options.out,
        "memory",
        targets,
        {"steps": options.steps, "ranks": RANKS, "resident_mib": resident},
    )


def rank_of(trial: int) -> int:
    """The LoRA rank of a trial, counted from 0."""
    return RANKS[trial % len(RANKS)]


def serve(trials: int, steps: int) -> list[float]:
    """Resident memory of this process in MiB after each of `trials` trials with the judge."""
    import torch

    from easyds_tune.spec.sweep import SweepSpec, trial_spec
    from easyds_tune.trial.memory import resident_mib
    from easyds_tune.trial.quiet import quiet_libraries
    from easyds_tune.trial.records import read_records
    from easyds_tune.trial.run import run_trial
    from easyds_tune.trial.workbench import Workbench

    quiet_libraries()
    torch.set_num_threads(1)
    judge = {
        "prompts": str(EASYDS / "judge_prompts.jsonl"),
        "num_prompts": 32,
        "max_new_tokens": 32,
        "reward": {"model_name_or_path": str(MODEL.with_name("tiny-reward"))},
    }
    sweep = SweepSpec.model_validate(
        bundled_spec("dpo", judge=judge, training__max_steps=steps, training__eval_steps=steps)
    )
    bench = Workbench(sweep, read_records(sweep.data, "dpo", sweep.judge), torch.device("cpu"))
    resident = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(trials):
            params = {"model.lora_r": rank_of(number)}
            spec = trial_spec(sweep, f"{number:03d}", params)
            for _ in run_trial(spec, bench, Path(scratch) / spec.trial_id):
                pass
            resident.append(resident_mib())
    return resident


if __name__ == "__main__":
    main()
