"""One trial alone, in this process: for `easyds-tune train` and for debugging."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError
from easyds_tune.spec.notes import shown_note
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.sweep import SweepSpec, TrialSpec, trial_spec
from easyds_tune.sweep.preflight import preflight
from easyds_tune.trial.records import SweepRecords

SHOWN = (
    "train/loss",
    "train/kl",
    "eval/reward",
    "eval/kl",
    "eval/accuracy",
    "eval/loss",
    "eval/length",
)


def train_single(spec: SweepSpec, params: dict[str, Any], folder: Path) -> int:
    """Train one configuration of a spec and print a line an evaluation; returns the exit code.

    folder: new; gets checkpoints/step-XXXXXX, and failure.json where the trial fails, which is
    told in one line and as exit code 1.
    """
    if os.path.lexists(folder):
        raise SpecError([f"--to: {folder} exists already; name a new folder"])
    tried = spec.with_params(params)
    records = preflight(tried, new_folder=False, is_sweep=False)
    for note in records.notes:
        print(shown_note(note), flush=True)
    trial = trial_spec(spec, "single", params, records.fitting)

    from easyds_tune.trial.failure import FILE, classify, write_failure

    try:
        # What a workbench shares between roles depends on what its trials train.
        _train(tried, trial, records, folder)
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = classify(error)
        write_failure(folder, failure)
        where = f"the traceback is in {folder / FILE}"
        print(f"error: {failure.type}: {failure.message}; {where}", file=sys.stderr)
        return 1
    print(f"checkpoints in {folder / 'checkpoints'}")
    return 0


def _train(spec: SweepSpec, trial: TrialSpec, records: SweepRecords, folder: Path) -> None:
    from easyds_tune.trial.run import run_trial
    from easyds_tune.trial.workbench import open_workbench

    resources = spec.resources
    bench = open_workbench(spec, records, gpus_of(resources), resources.cpus_per_trial)
    for report in run_trial(trial, bench, folder):
        shown = " ".join(
            f"{name} {report.metrics[name]:.4g}" for name in SHOWN if name in report.metrics
        )
        print(f"step {report.step}/{trial.budget.max_steps} {shown}", flush=True)
        for note in report.notes:
            print(f"note: {note}", flush=True)
