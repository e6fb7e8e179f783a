"""The Ray actor that runs trials, one after another, on a workbench it keeps."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from easyds_tune import progress
from easyds_tune.errors import DataError
from easyds_tune.spec.micro_batch import smaller_micro_batch
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.sweep.signals import unblock_sigterm

if TYPE_CHECKING:
    from easyds_tune.trial.run import Report
    from easyds_tune.trial.workbench import Workbench


STOP_FILE = "stop"
"""In the scratch folder: every running trial writes a checkpoint and ends."""
HEARTBEATS = "workers"
"""Folder in the scratch folder: a file of each worker says by when its next sign of life is due."""
SLOW = 10.0
"""So many times the longest pause a worker ever made, and it hangs."""
LOADING_SECONDS = 1800.0
"""Loading a base, data and judge gives no sign of life."""


@dataclass(frozen=True)
class SweepSetting:
    """What every worker of a sweep is told once.

    working_folder: where relative paths of the spec stand; folder: the sweep's own, absolute.
    scratch: for temporary files; the driver removes it. hashes: of the records it read.
    gpus: GPU share of a trial; threads: threads a worker computes with.
    """

    spec: SweepSpec
    train_records: int
    working_folder: str
    folder: str
    scratch: str
    hashes: dict[str, str]
    gpus: float
    threads: int


class TrialActor(tune.Trainable):
    """A Tune trainable: each `step` trains to the next evaluation and returns its report.

    Tune reuses the actor for the next trial, so base, tokenizer, data and judge are loaded once.
    A trial goes on from the newest whole one of the checkpoints it is given, on whatever actor.
    An exception ends the actor; Tune starts a fresh one for the next trial.
    """

    def setup(self, config: dict[str, Any], setting: SweepSetting | None = None) -> None:
        """Load what all trials share, then get ready for the first one."""
        assert setting is not None
        self._setting = setting
        self._reports: Iterator[Report] | None = None
        self._take(config)
        with _failures_kept(self._trial_folder), watched_while_loading(setting, config["trial"]):
            self._bench = open_workbench_of(setting)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Get ready for the next trial on the same workbench."""
        self._close()
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        setting = self._setting
        trial = trial_spec(setting.spec, config["trial"], config["params"], setting.train_records)
        if config["seed"] is not None:
            trial = trial.model_copy(update={"seed": config["seed"]})
        self._trial = smaller_micro_batch(trial, config["halvings"]) or trial
        self._trial_folder = Path(setting.folder) / "trials" / trial.trial_id
        self._digests = {
            Path(setting.folder) / path: digest for path, digest in config["checkpoints"].items()
        }

    def step(self) -> dict[str, Any]:
        """Train to the next evaluation.

        Returns the report as Tune wants it: flat metrics beside `global_step` and `examples`.
        A diverged trial ends with `failure`: its worker is sound and goes on with the next trial.
        No report says `done`: Tune would keep the last one from its scheduler, which ends trials.
        """
        from easyds_tune.errors import DivergedError
        from easyds_tune.trial.failure import classify, write_failure
        from easyds_tune.trial.run import run_trial

        with _failures_kept(self._trial_folder):
            if self._reports is None:
                self._reports = run_trial(
                    self._trial,
                    self._bench,
                    self._trial_folder,
                    list(self._digests),
                    stop_asked=(Path(self._setting.scratch) / STOP_FILE).exists,
                    digests=self._digests,
                )
            try:
                report = next(self._reports)
            except DivergedError as error:
                failure = classify(error)
                write_failure(self._trial_folder, failure)
                return {"failure": json.dumps(asdict(failure))}  # Tune flattens what is nested
        return {
            **report.metrics,
            "global_step": report.step,
            "examples": report.examples,
            "checkpoint": os.path.relpath(report.checkpoint.path, self._setting.folder),
            "checkpoint_bytes": report.checkpoint.bytes,
            "checkpoint_digest": report.checkpoint.digest,
            "is_last": report.is_last,
            "is_partial": report.is_partial,
            "notes": json.dumps(list(report.notes)),
        }

    def _close(self) -> None:
        if self._reports is not None:
            self._reports.close()  # type: ignore[attr-defined]
            self._reports = None

    def cleanup(self) -> None:
        """End the running trial, if any, when the actor is stopped."""
        self._close()


@contextmanager
def _failures_kept(folder: Path) -> Iterator[None]:
    """Leave the class, message and traceback of an exception in the trial's folder, and re-raise.

    Ray tells the driver of a dead actor only in words of its own.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # SystemExit: an imported module may raise it
        from easyds_tune.trial.failure import classify, write_failure

        write_failure(folder, classify(error))
        raise


@contextmanager
def watched_while_loading(setting: SweepSetting, trial: str) -> Iterator[None]:
    """Let the supervisor watch this process: within the block as one that loads, then at work."""
    file = Path(setting.scratch) / HEARTBEATS / f"{os.getpid()}.json"
    hang_seconds = setting.spec.resources.hang_seconds
    progress.watch(file, max(hang_seconds, LOADING_SECONDS), SLOW)
    progress.works_on(trial)
    yield
    progress.watch(file, hang_seconds, SLOW)


def open_workbench_of(setting: SweepSetting) -> Workbench:
    unblock_sigterm()  # libraries end their own processes with it
    os.chdir(setting.working_folder)
    tempfile.tempdir = setting.scratch
    from easyds_tune.trial.quiet import quiet_libraries
    from easyds_tune.trial.records import records_of
    from easyds_tune.trial.workbench import open_workbench

    quiet_libraries()
    spec = setting.spec
    records = records_of(spec)
    if records.hashes != setting.hashes:
        raise DataError(["the data files have changed since the sweep began; start it anew"])
    return open_workbench(spec, records, setting.gpus, setting.threads)
