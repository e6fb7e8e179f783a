"""Every decision of a sweep, as a fold over its events: what runs next, and what a report means.

The live sweep, the simulation and a replayed journal use the same `Decider`: it knows the record
and the rules, and neither Ray nor the clock. Whoever runs it applies each event to the record
first, and then asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from easyds_tune.decisions.guard import inspect
from easyds_tune.decisions.rules import Rules
from easyds_tune.decisions.schedulers import Action, make_scheduler
from easyds_tune.decisions.stop import reason_to_stop
from easyds_tune.journal.events import Source, TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.ranking import rank

Suggest = Callable[[int, SweepRecord], Mapping[str, Any] | None]
"""(number, record) -> the parameters of the trial of that number; None where there are no more."""


@dataclass(frozen=True, slots=True)
class Start:
    """A new trial should begin."""

    number: int
    params: dict[str, Any]
    source: Source
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Promote:
    """A paused trial should go on."""

    trial: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before a running trial reports or ends."""


@dataclass(frozen=True, slots=True)
class Over:
    """The search is over; trials that are still paused have lost."""

    reason: str


Next = Start | Promote | Wait | Over


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
    _ended: str | None = field(default=None, init=False)
    _units: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._scheduler = make_scheduler(self.rules)
        for trial, count in _in_order_of_reports(self.record):
            seen = TrialRecord(
                trial.id, trial.number, trial.params, trial.source, trial.suggested,
                reports=trial.reports[:count],
            )  # fmt: skip
            if trial.source != "finals":
                self._scheduler.take_in(seen, self._progress(trial, seen.step))

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
            return Verdict("stop", state=TrialState.COMPLETED, reason=note.reason if note else "")
        if trial.source != "finals" and (reason := self._reason_to_end(self.record.updated)):
            return Verdict("stop", "stop", reason, TrialState.PRUNED)
        if choice is None or choice.action == "continue":
            return note or Verdict("continue")
        state = TrialState.PRUNED if choice.action == "stop" else TrialState.PAUSED
        return Verdict(choice.action, self._scheduler.name, choice.reason, state)

    def next(self, now: float) -> Next:
        """What to do with a free slot, if there is one; `now` in unix seconds."""
        running = [t for t in self.record.trials.values() if t.state is TrialState.RUNNING]
        if len(running) >= self.rules.slots:
            return Wait()
        reason = self._reason_to_end(now)
        if reason is None:
            # A promotion before a new trial: it is the surer use of a slot.
            may_start = self._may_start()
            if found := self._scheduler.promotion(self.record, may_start):
                return Promote(found[0], self._scheduler.name, found[1])
            if may_start and (start := self._start()):
                return start
            if running:
                return Wait()
            if start := self._start_again():
                return start
            return Over("all trials have ended")
        if any(trial.source != "finals" for trial in running):
            return Wait()
        return self._start_again() or (Wait() if running else Over(reason))

    @property
    def is_search_over(self) -> bool:
        """Whether nothing but the finals is left, by a rule that ended the search early."""
        return self._ended is not None

    def _reason_to_end(self, now: float) -> str | None:
        if self._ended is None:
            self._ended = reason_to_stop(self.record, self.rules, now)
        return self._ended

    def _searched(self) -> int:
        return sum(trial.source != "finals" for trial in self.record.trials.values())

    def _may_start(self) -> bool:
        return not self._is_out_of_points and self._searched() < self.rules.num_trials

    def _start(self) -> Start | None:
        number = len(self.record.trials)
        if number == 0:
            return Start(0, dict(self.default), "default")
        if number <= len(self.points):
            return Start(number, dict(self.points[number - 1]), "point")
        params = self.suggest(number, self.record)
        if params is None:
            self._is_out_of_points = True
            return None
        return Start(number, dict(params), "sampler")

    def _start_again(self) -> Start | None:
        """The next retraining of a configuration that goes to the finals, on a seed of its own."""
        if not self.rules.seeds:
            return None
        again = sum(trial.source == "finals" for trial in self.record.trials.values())
        best = [entry.trial for entry in rank(self.record) if entry.is_fit]
        best = [trial for trial in best if trial.source != "finals"][: self.rules.top]
        wanted = [(t.params, k) for k in range(1, self.rules.seeds + 1) for t in best]
        if again >= len(wanted):
            return None
        params, copy = wanted[again]
        seed = self.rules.seed + 1000 * copy
        return Start(len(self.record.trials), dict(params), "finals", seed)

    def _progress(self, trial: TrialRecord, step: int) -> int:
        """A step in the unit of the rungs."""
        if self.examples_per_step is None:
            return step
        if trial.id not in self._units:
            self._units[trial.id] = self.examples_per_step(trial.params)
        return step * self._units[trial.id]


def _in_order_of_reports(record: SweepRecord) -> list[tuple[TrialRecord, int]]:
    """Each trial with how many of its reports were there, once a report, as they came in."""
    found = [
        (report.time, trial.number, trial, count)
        for trial in record.trials.values()
        for count, report in enumerate(trial.reports, start=1)
    ]
    return [(trial, count) for _, _, trial, count in sorted(found, key=lambda item: item[:2])]
