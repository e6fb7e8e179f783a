"""Writes down what happens: every event into the journal, and from there to the screen.

The journal comes first. The record, the display and TensorBoard only ever see what it holds.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback

from easyds_tune.decisions.decider import Decider, Promote, Proposal, Verdict, decision_event
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
from easyds_tune.results.derived import Boards
from easyds_tune.spec.sweep import trial_id
from easyds_tune.trial.failure import Failure, read_failure, write_failure

TUNES_OWN = "config/"
"""How names begin that Tune puts among the metrics when it flattens a result."""


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
    """Turns what Ray Tune and the decider say into journal events. Trials have ids of our own.

    A trial's end is written with the verdict that ends it, before Tune carries it out: what the
    decider is asked next, it is asked of a record that knows.
    """

    def __init__(
        self,
        journal: JournalWriter,
        record: SweepRecord,
        folder: Path,
        boards: Boards,
        display: Display,
    ) -> None:
        self.record = record
        self.stop_signal: int | None = None
        self._journal = journal
        self._folder = folder
        self._boards = boards
        self._display = display
        self._names: dict[str, str] = {}
        self._ray_ids: dict[str, str] = {}
        self._started: dict[str, float] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Pickled as an empty object: Tune pickles what it is given, and nobody reads that."""
        return (object, ())

    def append(self, event: Event) -> None:
        """Write one event, apply it to the record, and show it."""
        self.record.apply(self._journal.append(event))
        self._display.update(self.record)

    def ray_id(self, name: str) -> str:
        """Tune's own id of a trial."""
        return self._ray_ids[name]

    def suggested(self, ray_id: str, proposal: Proposal) -> None:
        """A configuration was chosen."""
        name = trial_id(proposal.number)
        self._names[ray_id], self._ray_ids[name] = name, ray_id
        self.append(
            SuggestEvent(name, proposal.number, proposal.params, proposal.source, proposal.seed)
        )

    def reported(self, ray_id: str, result: dict[str, Any]) -> str | None:
        """Write a report and its checkpoint; the trial's name, or None where it reported its end.

        The checkpoint is on disk before the report is told: nothing is ever best in vain.
        """
        name = self._names[ray_id]
        failure = result.get("failure")
        if failure is not None:
            self._fail(name, Failure(**json.loads(failure)))
            return None
        step = int(result["global_step"])
        metrics = {
            key: float(value)
            for key, value in result.items()
            if "/" in key and isinstance(value, (int, float)) and not key.startswith(TUNES_OWN)
        }
        self.append(ReportEvent(name, step, metrics))
        size = int(result["checkpoint_bytes"])
        self.append(CheckpointEvent(name, step, str(result["checkpoint"]), size))
        self._boards.report(self.record.trials[name])
        return name

    def decided(self, name: str, verdict: Verdict) -> None:
        """Write what the decider made of a trial's newest report."""
        if event := decision_event(self.record.trials[name], verdict):
            self.append(event)
        if verdict.state is not None:
            self.finish(name, verdict.state)

    def stop_if_due(self, decider: Decider) -> None:
        """Write that the search is over, once a limit is met."""
        if event := decider.stop_event(time.time()):
            self.append(event)

    def promoted(self, decision: Promote) -> None:
        """Write that a paused trial goes on."""
        step = self.record.trials[decision.trial].step
        event = DecideEvent(decision.trial, step, decision.by, "promote", decision.reason)
        self.append(event)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Between two of Tune's steps: keep the clock on the screen going, or stop."""
        self.tick()

    def tick(self) -> None:
        """Keep the clock on the screen going; raises Interrupted where a signal asked for it."""
        if self.stop_signal is not None:
            raise Interrupted(self.stop_signal)
        self._display.update(self.record)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got its slot, for the first time or again."""
        name = self._names[trial.trial_id]
        self._started[name] = time.monotonic()
        self.append(StartEvent(name, attempt=self.record.trials[name].attempt + 1))
        self._boards.start(self.record.trials[name])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune let go of a trial; one that still waited at a rung has lost."""
        name = self._names[trial.trial_id]
        if not self.record.trials[name].state.is_final:
            self.finish(name, TrialState.PRUNED)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial raised, or its worker died."""
        name = self._names[trial.trial_id]
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
        """Write a trial's end, for good or for now."""
        trial = self.record.trials[name]
        started = self._started.pop(name, None)
        seconds = 0.0 if started is None else time.monotonic() - started
        self.append(FinishEvent(name, state, trial.step, round(seconds, 3), error))
        self._boards.finish(self.record.trials[name])

    def interrupt(self) -> None:
        """Write the end of every trial that was running when the sweep was told to stop.

        One that waits at a rung goes on waiting there.
        """
        for name, trial in self.record.trials.items():
            if trial.state is TrialState.RUNNING:
                self.finish(name, TrialState.INTERRUPTED)
