"""Every decision of a sweep, as a fold over its events: what runs next, and what a report means.

The live sweep, the simulation and a replayed journal use the same `Decider`: it knows the record
and the rules, and neither Ray nor the clock. Whoever runs it applies each event to the record
first, and then asks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from easyds_tune.decisions.finals import nominated, retrainings
from easyds_tune.decisions.guard import inspect
from easyds_tune.decisions.rules import Rules
from easyds_tune.decisions.schedulers import Action, make_scheduler
from easyds_tune.decisions.stop import Limits
from easyds_tune.journal.events import DecideEvent, Source, StopEvent, TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord

Suggest = Callable[[int, SweepRecord], Mapping[str, Any] | None]
"""(number, record) -> the parameters of the trial of that number; None where there are no more."""


@dataclass(frozen=True, slots=True)
class New:
    """A new trial should begin: ask `propose` which."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The configuration of a new trial."""

    number: int
    params: dict[str, Any]
    source: Source
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GoOn:
    """A trial that waits at a rung, or was interrupted, should go on from its checkpoint."""

    trial: str
    by: str
    action: Literal["promote", "resume"]
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before a running trial reports or ends."""


@dataclass(frozen=True, slots=True)
class Over:
    """The search is over; trials that are still paused have lost."""

    reason: str


Next = New | GoOn | Wait | Over


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report means for its trial, who says so, and why.

    state: what a stopped trial becomes. `note` is worth an event although the trial goes on.
    """

    action: Action
    by: str = ""
    reason: str = ""
    state: TrialState | None = None
    note: bool = False


@dataclass
class Decider:
    """Decides for one sweep. The record is the caller's, and is only read.

    default: the parameters of trial 0. points: configurations to try right after it.
    examples_per_step: of a configuration where rungs are in examples, else None.
    Reports that the record holds already are taken in at once, as when a journal was replayed.
    """

    rules: Rules
    record: SweepRecord
    suggest: Suggest
    default: dict[str, Any]
    points: Sequence[dict[str, Any]] = ()
    examples_per_step: Callable[[dict[str, Any]], int] | None = None
    _is_out_of_points: bool = field(default=False, init=False)
    _units: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._limits = Limits(self.rules.stop, self.rules.gpus, self.record)
        self._scheduler = make_scheduler(self.rules)
        for trial in _as_they_reported(self.record):
            if trial.step == self._newest(trial.id) and self._is_undecided(trial):
                continue  # whoever goes on with the sweep asks `on_report`
            if trial.source != "finals" and not self._is_stopped(trial):
                self._scheduler.take_in(trial, self._progress(trial, trial.step))

    def on_report(self, trial_id: str, is_last: bool) -> Verdict:
        """What the newest report of a trial means. The guard outranks every scheduler.

        is_last: the trial has used its whole budget.
        """
        trial = self.record.trials[trial_id]
        found = inspect(trial, self.record.objectives, self.rules.bounds)
        if found is not None and found.state is not None:
            return Verdict("stop", "guard", found.reason, found.state)
        note = Verdict("continue", "guard", found.reason, note=True) if found else None
        choice = None
        if trial.source != "finals":
            choice = self._scheduler.take_in(trial, self._progress(trial, trial.step))
        if is_last:
            verdict = note or Verdict("stop")
            return dataclasses.replace(verdict, action="stop", state=TrialState.COMPLETED)
        if trial.source != "finals" and self.record.stopped is not None:
            return Verdict("stop", "stop", self.record.stopped, TrialState.PRUNED)
        if choice is None or choice.action == "continue":
            return note or Verdict("continue")
        state = TrialState.PRUNED if choice.action == "stop" else TrialState.PAUSED
        return Verdict(choice.action, self._scheduler.name, choice.reason, state)

    def next(self) -> Next:
        """What to do with a free slot, if there is one."""
        running = [t for t in self.record.trials.values() if t.state is TrialState.RUNNING]
        if len(running) >= self.rules.slots:
            return Wait()
        for trial in self.record.trials.values():
            if trial.state is TrialState.INTERRUPTED:
                return GoOn(trial.id, "driver", "resume", why_it_goes_on(trial))
        reason = self.record.stopped
        if reason is None:
            # A promotion before a new trial: it is the surer use of a slot.
            may_start = self._may_start()
            if found := self._scheduler.promotion(self.record, may_start):
                return GoOn(found[0], self._scheduler.name, "promote", found[1])
            if may_start:
                return New()
        if any(trial.source != "finals" for trial in running):
            return Wait()
        if self._retraining() is not None:
            return New()
        return Wait() if running else Over(reason or "all trials have ended")

    def propose(self) -> Proposal | None:
        """The configuration of the trial that `next` wants begun.

        None where a grid has no more points: ask `next` again.
        """
        if self.record.stopped is None and self._may_start():
            return self._proposal()
        return self._retraining()

    def _is_undecided(self, trial: TrialRecord) -> bool:
        """Whether nothing was decided on the newest report; one without its checkpoint is made
        again."""
        known = trial.checkpoints.keys() | trial.collected | trial.lost.keys()
        return trial.id == self.record.undecided or trial.step not in known

    def _newest(self, trial_id: str) -> int:
        return self.record.trials[trial_id].step

    def _is_stopped(self, trial: TrialRecord) -> bool:
        """Whether the guard stops a trial at its newest report, which no scheduler then sees."""
        found = inspect(trial, self.record.objectives, self.rules.bounds)
        return found is not None and found.state is not None

    def stop_event(self, ran: float) -> StopEvent | None:
        """The event to write once a limit is met, before anything else is asked; else None.

        ran: seconds for which drivers have run the sweep by now.
        """
        if self.record.stopped is not None:
            return None
        reason = self._limits.reason(ran)
        return None if reason is None else StopEvent(reason)

    def _searched(self) -> int:
        return sum(trial.source != "finals" for trial in self.record.trials.values())

    def _may_start(self) -> bool:
        return not self._is_out_of_points and self._searched() < self.rules.num_trials

    def _proposal(self) -> Proposal | None:
        number = self.record.next_number
        if number == 0:
            return Proposal(0, dict(self.default), "default")
        if number <= len(self.points):
            return Proposal(number, dict(self.points[number - 1]), "point")
        params = self.suggest(number, self.record)
        if params is None:
            self._is_out_of_points = True
            return None
        return Proposal(number, dict(params), "sampler")

    def _retraining(self) -> Proposal | None:
        """The next configuration that the finals want trained again, on a seed of its own."""
        if not self.rules.seeds:
            return None
        finalists = nominated(self.record, self.rules.top)
        left = retrainings(self.record, finalists, self.rules.seeds, self.rules.seed)
        if not left:
            return None
        number = self.record.next_number
        return Proposal(number, dict(left[0].params), "finals", left[0].seed)

    def _progress(self, trial: TrialRecord, step: int) -> int:
        """A step in the unit of the rungs."""
        if self.examples_per_step is None:
            return step
        if trial.id not in self._units:
            self._units[trial.id] = self.examples_per_step(trial.params)
        return step * self._units[trial.id]


def why_it_goes_on(trial: TrialRecord) -> str:
    """From where an interrupted trial goes on, and after what, in words."""
    steps = trial.resumable()
    where = f"from step {steps[0]}" if steps else "from the start"
    return f"{where}, after {trial.error.type}" if trial.error else where


def decision_event(trial: TrialRecord, verdict: Verdict) -> DecideEvent | None:
    """What the journal should say of a verdict on a trial's newest report, if anything."""
    if not verdict.by:
        return None
    action = "note" if verdict.note else verdict.action
    return DecideEvent(trial.id, trial.step, verdict.by, action, verdict.reason)


def _as_they_reported(record: SweepRecord) -> Iterator[TrialRecord]:
    """Each trial as it was at each of its reports, in the order of the journal."""
    found = [
        (report.seq, trial, count)
        for trial in record.trials.values()
        for count, report in enumerate(trial.reports, start=1)
    ]
    for _, trial, count in sorted(found, key=lambda item: item[0]):
        yield dataclasses.replace(trial, reports=trial.reports[:count])
