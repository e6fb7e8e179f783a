"""A trial's training step against the same step of the bare TRL loop: SFT, reward model, DPO.

Both run in this process, in turn, on the same tokenised data under DeepSpeed ZeRO-2; a step is
the time from the end of one to the end of the next, data loading included. Promised: within 5 %.
The processor's time stands beside the clock's: it says the same on a machine that others use too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bare import bare_trainer
from harness import (
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
from transformers.trainer_callback import DefaultFlowCallback

from easyds_tune.algorithms.trl_loop import TokenisedData
from easyds_tune.models.deepspeed import end_of_engine, release
from easyds_tune.models.load import load_model
from easyds_tune.spec.sweep import SweepSpec, TrialSpec, trial_spec
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import read_records
from easyds_tune.trial.run import run_trial
from easyds_tune.trial.workbench import Workbench

ALGORITHMS = ("sft", "rm", "dpo")
MEASURED = ("trial", "bare", "trial cpu", "bare cpu")
RATIOS = ("ratio", "ratio cpu")
WARM_UP_STEPS = 2


def main() -> None:
    """Time each algorithm's steps, ours and TRL's in turn, and compare their losses."""
    arguments = parser(__doc__, rounds=7)
    arguments.add_argument("--steps", type=int, default=30, help="steps of a run (default 30)")
    options = arguments.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    body, targets, measured = [], [], {}
    for algorithm in ALGORITHMS:
        samples = compare(algorithm, options.rounds, options.steps)
        spreads = {name: Spread.of(samples[name]) for name in (*MEASURED, *RATIOS)}
        body += [[f"{algorithm} {name}", *spread.row()] for name, spread in spreads.items()]
        ratio = spreads["ratio"].median
        targets.append(Target(f"{algorithm} step, trial / bare", ratio, 1.05, "at most"))
        measured[algorithm] = samples
    print(table(["milliseconds, and their ratio", *SPREAD_HEADER], body))
    show_targets(targets)
    for algorithm, samples in measured.items():
        verdict = "equal" if samples["losses_equal"] else "DIFFERENT"
        print(f"{algorithm} losses of both: {verdict}")
    write_result(options.out, "step_time", targets, {"steps": options.steps, "runs": measured})


def compare(algorithm: str, rounds: int, steps: int) -> dict[str, Any]:
    """Median step in milliseconds of each round, ours and bare, and their ratio."""
    spec = bundled_spec(algorithm, training__max_steps=steps, training__eval_steps=steps)
    sweep = SweepSpec.model_validate(spec)
    bench = Workbench(sweep, read_records(sweep.data, algorithm, None), torch.device("cpu"))
    trial = trial_spec(sweep, "000", {})
    runs: dict[str, Callable[[Path], float]] = {
        "trial": lambda folder: our_loss(trial, bench, folder),
        "bare": lambda folder: bare_loss(trial, bench, folder),
    }
    samples: dict[str, list[float]] = {name: [] for name in MEASURED}
    losses = set()
    for turn in range(rounds):
        for name in runs if turn % 2 else reversed(runs):
            with tempfile.TemporaryDirectory() as folder, step_ends() as ends:
                losses.add(runs[name](Path(folder)))
            for clock, column in enumerate((name, f"{name} cpu")):
                seconds = [end[clock] - start[clock] for start, end in pairwise(ends)]
                samples[column].append(1000 * statistics.median(seconds[WARM_UP_STEPS:]))
    return {
        **samples,
        "ratio": ratios(samples["trial"], samples["bare"]),
        "ratio cpu": ratios(samples["trial cpu"], samples["bare cpu"]),
        "losses_equal": len(losses) == 1,
    }


@contextmanager
def step_ends() -> Iterator[list[tuple[float, float]]]:
    """Collect the end of every optimizer step of any Transformers trainer.

    In seconds, by the clock and by this process's processor time.
    """
    ends: list[tuple[float, float]] = []
    original = DefaultFlowCallback.on_step_end

    def on_step_end(self: DefaultFlowCallback, *args: Any, **kwargs: Any) -> Any:
        ends.append((time.perf_counter(), time.process_time()))
        return original(self, *args, **kwargs)

    with patch.object(DefaultFlowCallback, "on_step_end", on_step_end):
        yield ends


def our_loss(trial: TrialSpec, bench: Workbench, folder: Path) -> float:
    """Run a trial; its mean training loss."""
    (report,) = run_trial(trial, bench, folder)
    return report.metrics["train/loss"]


def bare_loss(trial: TrialSpec, bench: Workbench, folder: Path) -> float:
    """Run TRL's loop on a base of its own and the workbench's tokens; its mean training loss."""
    inputs = bench.lend(trial)
    bench.take_back(trial, inputs)
    kind = "reward" if trial.algorithm.type == "rm" else "causal"
    base = load_model(trial.model, kind, torch.device("cpu"))
    with end_of_engine(folder), patch_preparation():
        trainer = bare_trainer(trial, base, inputs.tokenizer, inputs.train, folder)
        trainer.train()
        release(trainer.deepspeed)
        return float(trainer.state.log_history[0]["loss"])


@contextmanager
def patch_preparation() -> Iterator[None]:
    """Let TRL take tokenised data as it is, as a trial does: this compares steps, not set-up."""
    from trl import DPOTrainer, RewardTrainer, SFTTrainer

    keep = TokenisedData._prepare_dataset
    with (
        patch.object(SFTTrainer, "_prepare_dataset", keep),
        patch.object(RewardTrainer, "_prepare_dataset", keep),
        patch.object(DPOTrainer, "_prepare_dataset", keep),
    ):
        yield


if __name__ == "__main__":
    main()
