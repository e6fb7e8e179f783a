"""Writes down what happens: every event into the journal, and from there to the screen.

The journal comes first. The record, the display and TensorBoard only ever see what it holds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback

from easyds_tune.journal.events import (
    CheckpointEvent,
    DecideEvent,
    Event,
    FinishEvent,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.tensorboard import TensorBoardWriter
from easyds_tune.spec.sweep import trial_id
from easyds_tune.trial.failure import Failure, read_failure, write_failure


class Interrupted(BaseException):
    """The sweep was told to stop; `signum` says by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Display(Protocol):
    """What shows a sweep while it runs."""

    def update(self, record: SweepRecord) -> None:
        """Show the record as it is now."""
        ...


class Recorder(Callback):
    """Turns Ray Tune's callbacks into journal events. Trials are known by our own ids."""

    def __init__(
        self,
        journal: JournalWriter,
        record: SweepRecord,
        folder: Path,
        boards: TensorBoardWriter,
        display: Display,
    ) -> None:
        self.record = record
        self.stop_signal: int | None = None
        self._journal = journal
        self._folder = folder
        self._boards = boards
        self._display = display
        self._ids: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._decisions: dict[str, DecideEvent] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Pickled as an empty object: Tune pickles what it is given, and nobody reads that."""
        return (object, ())

    def append(self, event: Event) -> None:
        """Write one event, apply it to the record, and show it."""
        self.record.apply(self._journal.append(event))
        self._display.update(self.record)

    def suggested(self, ray_id: str, number: int, params: dict[str, Any], source: str) -> None:
        """A configuration was chosen."""
        self._ids[ray_id] = trial = trial_id(number)
        assert source in ("default", "sampler")
        self.append(SuggestEvent(trial, number, params, source))  # type: ignore[arg-type]

    def decided(self, ray_id: str, step: int, by: str, action: str, reason: str) -> None:
        """A scheduler decided on a report that Tune has not passed on yet."""
        self._decisions[ray_id] = DecideEvent(self._ids[ray_id], step, by, action, reason)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Between two of Tune's steps: keep the clock on the screen going, or stop."""
        if self.stop_signal is not None:
            raise Interrupted(self.stop_signal)
        self._display.update(self.record)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got its slot."""
        name = self._ids[trial.trial_id]
        self._started[name] = time.monotonic()
        self.append(StartEvent(name, attempt=self.record.trials[name].attempt + 1))
        self._boards.start(self.record.trials[name])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported; then what the scheduler made of it."""
        name = self._ids[trial.trial_id]
        if "global_step" in result:
            step = int(result["global_step"])
            metrics = {
                key: float(value)
                for key, value in result.items()
                if "/" in key and isinstance(value, (int, float))
            }
            # The checkpoint is on disk before the report is told: nothing is ever best in vain.
            self.append(ReportEvent(name, step, metrics))
            size = int(result["checkpoint_bytes"])
            self.append(CheckpointEvent(name, step, str(result["checkpoint"]), size))
            self._boards.report(self.record.trials[name])
        decision = self._decisions.pop(trial.trial_id, None)
        if decision is not None:
            self.append(decision)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its end, or the scheduler stopped it, or it diverged."""
        name = self._ids[trial.trial_id]
        failure = trial.last_result.get("failure")
        if failure is not None:
            self._fail(name, Failure(**failure))
        else:
            stopped = any(d.action == "stop" for d in self.record.trials[name].decisions)
            self.finish(name, TrialState.PRUNED if stopped else TrialState.COMPLETED)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial raised, or its worker died."""
        name = self._ids[trial.trial_id]
        folder = self._folder / "trials" / name
        failure = read_failure(folder)
        if failure is None:
            text = ""
            with suppress(OSError, TypeError):  # Ray keeps its own account, if anyone does
                text = Path(trial.error_file).read_text(encoding="utf-8")
            message = "its worker was killed, perhaps by the system for want of memory"
            failure = Failure("FAILED", "WorkerDied", message, text)
            write_failure(folder, failure)
        self._fail(name, failure)

    def _fail(self, name: str, failure: Failure) -> None:
        self.finish(name, TrialState(failure.state), TrialError(failure.type, failure.message))

    def finish(self, name: str, state: TrialState, error: TrialError | None = None) -> None:
        """Write a trial's end."""
        trial = self.record.trials[name]
        seconds = time.monotonic() - self._started.get(name, time.monotonic())
        self.append(FinishEvent(name, state, trial.step, round(seconds, 3), error))
        self._boards.finish(self.record.trials[name])

    def interrupt(self) -> None:
        """Write the end of every trial that was running when the sweep was told to stop."""
        for name, trial in self.record.trials.items():
            if trial.state is TrialState.RUNNING:
                self.finish(name, TrialState.INTERRUPTED)
