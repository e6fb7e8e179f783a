"""Writes down what happens: every event into the journal, and from there to the screen.

The journal comes first. The record, the display and TensorBoard only ever see what it holds.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback

from easyds_tune.decisions.decider import Decider, GoOn, Proposal, Verdict, decision_event
from easyds_tune.decisions.retries import state_after, times_out_of_memory
from easyds_tune.journal.events import (
    CheckpointEvent,
    DecideEvent,
    Event,
    FinishEvent,
    NoteEvent,
    ReportEvent,
    StartEvent,
    StopEvent,
    SuggestEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.derived import Boards
from easyds_tune.spec.sweep import trial_id
from easyds_tune.sweep.cluster import last_words
from easyds_tune.sweep.disk import Room, wait_for_room, warn
from easyds_tune.sweep.last_words import LastWords
from easyds_tune.sweep.signals import Interrupted, Signals
from easyds_tune.sweep.supervisor import Supervisor
from easyds_tune.trial.failure import (
    DISK_FULL,
    Failure,
    put_away_failure,
    read_failure,
    write_failure,
)

TUNES_OWN = "config/"
"""How names begin that Tune puts among the metrics when it flattens a result."""
SECONDS_BETWEEN_CHECKS = 0.5
"""How often Ray and the workers are looked after."""
SECONDS_TO_CHECKPOINT = 60
"""How long running trials get to write a checkpoint once the sweep is told to stop."""


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
        can_shrink: Callable[[TrialRecord], bool] = lambda trial: False,
        ask_to_stop: Callable[[], object] = lambda: None,
        supervisor: Supervisor | None = None,
        tidy: Callable[[], object] = lambda: None,
        over_limit: Callable[[], int] = lambda: 0,
        signals: Signals | None = None,
        check_ray: Callable[[], object] = lambda: None,
    ) -> None:
        """folder: the sweep's own. can_shrink: whether a trial's micro-batch can be halved once
        more. ask_to_stop: lets every running trial know that it should write a checkpoint and end.
        supervisor: asked twice a second to end workers that hang. tidy: called when checkpoints
        may have become useless. over_limit: bytes by which those that must stay exceed the limit.
        signals: what has told the sweep to stop. check_ray: called twice a second; what it raises
        ends the sweep.
        """
        self.record = record
        self._signals = signals or Signals()
        self._check_ray = check_ray
        self._journal = journal
        self._folder = folder
        self._boards = boards
        self._display = display
        self._can_shrink = can_shrink
        self._ask_to_stop = ask_to_stop
        self._supervisor = supervisor
        self._tidy = tidy
        self._over_limit = over_limit
        self._room = Room(folder, warn)
        self._supervised = 0.0
        self._deadline: float | None = None
        self._names: dict[str, str] = {}
        self._started: dict[str, float] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Pickled as an empty object: Tune pickles what it is given, and nobody reads that."""
        return (object, ())

    @property
    def stop_signal(self) -> int | None:
        """The signal that told the sweep to stop; None while none has."""
        return self._signals.first

    @stop_signal.setter
    def stop_signal(self, signum: int | None) -> None:
        self._signals.first = signum

    def append(self, event: Event) -> None:
        """Write one event, apply it to the record, and show it; waits while the disk is full."""
        write = functools.partial(self._journal.append, event)
        self.record.apply(wait_for_room(write, self._folder, warn, self._stop_waiting))
        self._display.update(self.record)

    def suggested(self, ray_id: str, proposal: Proposal) -> dict[str, Any]:
        """A configuration was chosen; what its worker is told."""
        name = trial_id(proposal.number)
        self.append(
            SuggestEvent(name, proposal.number, proposal.params, proposal.source, proposal.seed)
        )
        return self._handed_out(ray_id, name)

    def goes_on(self, ray_id: str, decision: GoOn) -> dict[str, Any]:
        """A trial goes on from its newest checkpoint; what its worker is told."""
        name, trial = decision.trial, self.record.trials[decision.trial]
        self.append(DecideEvent(name, trial.step, decision.by, decision.action, decision.reason))
        return self._handed_out(ray_id, name)

    def _handed_out(self, ray_id: str, name: str) -> dict[str, Any]:
        self._names[ray_id] = name
        with suppress(OSError):
            put_away_failure(self._trial_folder(name))  # of an attempt before this one
        trial = self.record.trials[name]
        return {
            "trial": name,
            "params": trial.params,
            "seed": trial.seed,
            "checkpoints": {
                trial.checkpoints[step]: trial.digests[step] for step in trial.resumable()
            },
            "halvings": times_out_of_memory(trial),
        }

    def reported(self, ray_id: str, result: dict[str, Any]) -> str | None:
        """Write a report and its checkpoint; the trial's name, or None where it reported its end.

        The checkpoint is on disk before the report is told: nothing is ever best in vain.
        """
        name = self._names[ray_id]
        failure = result.get("failure")
        if failure is not None:
            self._fail(name, Failure(**json.loads(failure)))
            return None
        for note in json.loads(result.get("notes", "[]")):
            self.append(NoteEvent(f"trial {name}: {note}"))
        step = int(result["global_step"])
        if result.get("is_partial"):
            self._checkpointed(name, step, result)
            self.finish(name, TrialState.INTERRUPTED)
            return None
        metrics = {
            key: float(value)
            for key, value in result.items()
            if "/" in key and isinstance(value, (int, float)) and not key.startswith(TUNES_OWN)
        }
        self.append(ReportEvent(name, step, metrics))
        self._checkpointed(name, step, result)
        self._boards.report(self.record.trials[name])
        return name

    def _checkpointed(self, name: str, step: int, result: dict[str, Any]) -> None:
        path, size = str(result["checkpoint"]), int(result["checkpoint_bytes"])
        self.append(CheckpointEvent(name, step, path, size, str(result["checkpoint_digest"])))

    def decided(self, name: str, verdict: Verdict) -> None:
        """Write what the decider made of a trial's newest report."""
        trial = self.record.trials[name]
        event = decision_event(trial, verdict)
        if event is not None and event not in trial.decisions[-1:]:
            self.append(event)  # a decision that a driver wrote and did not carry out stands
        if verdict.state is not None:
            self.finish(name, verdict.state)
        self._tidy()

    def stop_if_due(self, decider: Decider) -> None:
        """Write that the search is over, once a limit is met."""
        if event := decider.stop_event(self.record.ran_at(self._journal.up)):
            self.append(event)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Between two of Tune's steps: keep the clock on the screen going, or stop."""
        self.tick()

    def tick(self) -> None:
        """Keep the clock on the screen going; raises Interrupted where a signal asked for it."""
        self._display.update(self.record)
        self._look_after_workers()
        if self.stop_signal is None:
            return
        if self._deadline is None:
            self._deadline = time.monotonic() + SECONDS_TO_CHECKPOINT
            if self._started:
                warn(f"stopping: trials have {SECONDS_TO_CHECKPOINT} s to write a checkpoint")
            self._ask_to_stop()
        is_due = self._signals.is_second or time.monotonic() > self._deadline
        if not self._started or is_due:
            raise Interrupted(self.stop_signal)

    def _look_after_workers(self) -> None:
        if time.monotonic() - self._supervised < SECONDS_BETWEEN_CHECKS:
            return
        self._supervised = time.monotonic()
        self._check_ray()
        if self._supervisor is None:
            return
        for line in self._supervisor.check():
            warn(line)

    def _stop_waiting(self) -> None:
        if self.stop_signal is not None:
            raise Interrupted(self.stop_signal)

    def has_room(self) -> bool:
        """Whether a trial may begin: memory is not short, and the disk takes the checkpoints of all
        slots and one more.

        Where what must stay exceeds the sweep's own limit, trials that run come to their end first;
        where none does, the search is over.
        """
        if self._supervisor is not None and self._supervisor.is_memory_short:
            return False
        largest = max((trial.largest for trial in self.record.trials.values()), default=0)
        if self._room.is_short((len(self._started) + 1) * largest):
            return False
        over = self._over_limit()
        trials = self.record.trials.values()
        is_busy = any(trial.state is TrialState.RUNNING for trial in trials)
        if over > 0 and not is_busy and self.record.stopped is None:
            what = f"checkpoints that must stay take {over} bytes more than output.disk_limit"
            self.append(StopEvent(what))
            return False  # what is to run next is another question now
        return over <= 0 or not is_busy

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has told the sweep to stop: nothing new begins."""
        return self.stop_signal is not None

    def interrupt_if_stopping(self, name: str) -> bool:
        """Interrupt a trial that has just reported, where the sweep is to stop."""
        if self.is_stopping:
            self.finish(name, TrialState.INTERRUPTED)
        return self.is_stopping

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got its slot, for the first time or again."""
        name = self._names[trial.trial_id]
        self._started[name] = time.monotonic()
        self.append(StartEvent(name, attempt=self.record.trials[name].attempt + 1))
        self._boards.start(self.record.trials[name])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial raised, or its worker died; where Ray died, that is no fault of the trial."""
        self._check_ray()
        name = self._names[trial.trial_id]
        folder = self._trial_folder(name)
        failure = read_failure(folder)
        if failure is None and self.is_stopping:
            self.finish(name, TrialState.INTERRUPTED)  # what ends a sweep may end its workers too
            return
        if failure is None:
            failure = failure_of_a_lost_worker(trial, self._last_words(name))
            with suppress(OSError):
                write_failure(folder, failure)
        self._fail(name, failure)

    def _last_words(self, name: str) -> LastWords | None:
        pid = None if self._supervisor is None else self._supervisor.pid_of(name)
        return None if pid is None else last_words(pid)

    def _fail(self, name: str, failure: Failure) -> None:
        trial = self.record.trials[name]
        if failure.type == DISK_FULL:
            self._room.was_too_little()
            warn(f"trial {name} found a disk full, and is tried again: {failure.message}")
        error = TrialError(failure.type, failure.message)
        meant = TrialState(failure.state)
        state = state_after(trial, meant, error, self._can_shrink(trial))
        if state is TrialState.INTERRUPTED and failure.type != DISK_FULL:
            how = "with half the micro-batch " if failure.state == "OUT_OF_MEMORY" else ""
            warn(f"trial {name}: {failure.type}; it is tried again {how}from its last checkpoint")
        self.finish(name, state, error)
        self._tidy()

    def release_paused(self) -> None:
        """The search is over: what still waits at a rung has lost."""
        for name, trial in self.record.trials.items():
            if trial.state is TrialState.PAUSED:
                self.finish(name, TrialState.PRUNED)
        self._tidy()

    def _trial_folder(self, name: str) -> Path:
        return self._folder / "trials" / name

    def finish(self, name: str, state: TrialState, error: TrialError | None = None) -> None:
        """Write a trial's end, for good or for now."""
        trial = self.record.trials[name]
        started = self._started.pop(name, None)
        seconds = 0.0 if started is None else time.monotonic() - started
        self.append(FinishEvent(name, state, trial.step, round(seconds, 3), error))
        self._boards.finish(self.record.trials[name])

    def interrupt(self) -> None:
        """Write the end, for now, of every trial that was running when the driver stopped.

        One that waits at a rung goes on waiting there. One whose report was not decided on is left
        to the next driver, which decides.
        """
        for name, trial in self.record.trials.items():
            if trial.state is TrialState.RUNNING and name != self.record.undecided:
                self.finish(name, TrialState.INTERRUPTED)


def failure_of_a_lost_worker(trial: Any, words: LastWords | None = None) -> Failure:
    """What is known of a Tune trial whose worker left no failure but perhaps some last words."""
    text = ""
    with suppress(OSError, TypeError):  # Ray keeps an account of its own, if anyone does
        text = Path(trial.error_file).read_text(encoding="utf-8")
    if "preempted" in text:
        return Failure("FAILED", "Preempted", "its node was taken away", text)
    message = "its worker was killed, perhaps by the system for want of memory"
    if words is not None:
        message, text = f"its worker died: {words.reason}", f"{words.text}\n{text}"
    return Failure("FAILED", "WorkerDied", message, text)
