"""A sweep in virtual time, without Ray: slots, a heap of what reports next, and the same decisions.

Thousands of sweeps on learning curves in minutes. Every event goes through the record as it would
through a journal, so what decides cannot tell the difference. Judging takes no time here.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from easyds_tune.decisions.decider import (
    GoOn,
    New,
    Next,
    Over,
    Proposal,
    Verdict,
    decision_event,
)
from easyds_tune.decisions.finals import find_finals, is_written, next_round
from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.decisions.stop import tokens_used
from easyds_tune.decisions.unfinished import unfinished_business
from easyds_tune.journal.events import (
    CheckpointEvent,
    DecideEvent,
    Entry,
    Event,
    FinishEvent,
    ReportEvent,
    ResumeEvent,
    StartEvent,
    StopEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.simulation.curves import Curves
from easyds_tune.simulation.finals import finals_per_judge, judge_finalist
from easyds_tune.spec.sweep import SweepSpec, trial_id

SPEEDS = (0.75, 1.25)
"""Slowest and fastest trial of a sweep, relative to the curves' seconds a step."""


class Decisions(Protocol):
    """What decides a sweep: our `Decider`, or something that it is compared with."""

    def stop_event(self, ran: float) -> StopEvent | None:
        """What to write where a limit of the search is met now."""
        ...

    def next(self) -> Next:
        """What to do with a free slot, if there is one."""
        ...

    def propose(self) -> Proposal | None:
        """The configuration of the trial that `next` wants begun; None: ask `next` again."""
        ...

    def on_report(self, trial_id: str, is_last: bool) -> Verdict:
        """What the newest report of a trial means; the record has it already."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """A report in the order in which they came in; `tokens` of the sweep by then."""

    tokens: int
    trial: str
    step: int


@dataclass
class SimulatedSweep:
    """How a sweep went. seconds: in virtual time; the others are what decisions really cost."""

    record: SweepRecord
    entries: list[Entry] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    seconds: float = 0.0
    propose_costs: list[float] = field(default_factory=list)
    report_costs: list[float] = field(default_factory=list)


def simulate(
    spec: SweepSpec,
    curves: Curves,
    decide: Callable[[SweepRecord], Decisions],
    slots: int,
    begun: SweepRecord | None = None,
) -> SimulatedSweep:
    """Run one sweep of `spec` on `slots` slots, its finals included.

    decide: makes what decides, given the record that it shall read. begun: a sweep whose driver
    died, to be resumed; its record is changed.
    """
    return _Loop(spec, curves, decide, slots, begun).run()


class _Loop:
    def __init__(
        self,
        spec: SweepSpec,
        curves: Curves,
        decide: Callable[[SweepRecord], Decisions],
        slots: int,
        begun: SweepRecord | None,
    ) -> None:
        self._spec = spec
        self._curves = curves
        self._slots = slots
        self._now = 0.0
        self._count = 1
        self._heap: list[tuple[float, int, str]] = []
        self._budget = spec.budget()
        first = Entry(0, self._now, sweep_event(spec, finals_per_judge(spec, curves)))
        record = begun or SweepRecord.begin(first)
        self._result = SimulatedSweep(record, [] if begun else [first])
        self._decisions = decide(record)
        if begun is not None:
            self._resume(record)

    def run(self) -> SimulatedSweep:
        self._run_trials()
        while self._judge_finalists():
            self._run_trials()
        self._result.seconds = self._now
        return self._result

    def _run_trials(self) -> None:
        record = self._result.record
        while True:
            self._fill_slots()
            if not self._heap:
                break
            self._now, _, name = heapq.heappop(self._heap)
            self._report(record.trials[name])
        for trial in list(record.trials.values()):
            if trial.state is TrialState.PAUSED:
                self._apply(FinishEvent(trial.id, TrialState.PRUNED, trial.step, 0.0))

    def _judge_finalists(self) -> bool:
        """As in a live sweep; True where those of the next round are to be trained again."""
        record, finals = self._result.record, self._spec.finals
        found = find_finals(record, self._spec)
        while finals is not None and found is not None:
            if not is_written(record, found):
                self._apply(found)
            judged = {(event.trial, event.step) for event in record.finalists}
            for name, step in found.finalists:
                if (name, step) not in judged:
                    self._apply(judge_finalist(record, self._spec, self._curves, name, step))
            found = next_round(record, finals.top)
            if found is not None and finals.seeds:
                self._apply(found)
                return True
        return False

    def _resume(self, record: SweepRecord) -> None:
        self._now = record.updated
        self._count = 1_000_000  # later than all that the journal holds
        self._apply(ResumeEvent(self._spec.search.num_trials))
        for event in unfinished_business(
            record, self._decisions.on_report, lambda trial: trial.step >= self._budget.max_steps
        ):
            self._apply(event)

    def _fill_slots(self) -> None:
        record = self._result.record
        while len(self._heap) < self._slots:
            self._stop_if_due()
            choice = self._decisions.next()
            match choice:
                case New():
                    self._begin()
                case GoOn():
                    trial = record.trials[choice.trial]
                    self._apply(
                        DecideEvent(trial.id, trial.step, choice.by, choice.action, choice.reason)
                    )
                    self._go_on(trial)
                case Over():
                    return
                case _:
                    assert self._heap, "waits although nothing runs"
                    return

    def _stop_if_due(self) -> None:
        if event := self._decisions.stop_event(self._now):
            self._apply(event)

    def _begin(self) -> None:
        began = time.perf_counter()
        proposal = self._decisions.propose()
        self._result.propose_costs.append(time.perf_counter() - began)
        if proposal is None:
            return
        name = trial_id(proposal.number)
        self._apply(
            SuggestEvent(name, proposal.number, proposal.params, proposal.source, proposal.seed)
        )
        self._go_on(self._result.record.trials[name])

    def _go_on(self, trial: TrialRecord) -> None:
        self._apply(StartEvent(trial.id, trial.attempt + 1))
        self._schedule(trial)

    def _schedule(self, trial: TrialRecord) -> None:
        steps = self._next_step(trial) - max(trial.checkpoints, default=0)
        speed = random.Random(f"{self._curves.judge} {trial.number}").uniform(*SPEEDS)
        seconds = steps * self._curves.landscape.seconds_per_step / speed
        heapq.heappush(self._heap, (self._now + seconds, trial.number, trial.id))

    def _next_step(self, trial: TrialRecord) -> int:
        every = self._budget.eval_steps
        at = max(trial.checkpoints, default=0)
        return min(self._budget.max_steps, (at // every + 1) * every)

    def _report(self, trial: TrialRecord) -> None:
        step = self._next_step(trial)
        seed = self._spec.seed if trial.seed is None else trial.seed
        metrics = self._curves.report(trial.params, step, seed)
        self._apply(ReportEvent(trial.id, step, metrics))
        self._apply(CheckpointEvent(trial.id, step, checkpoint_path(trial.id, step), 0))
        if trial.source != "finals":
            self._result.told.append(Told(tokens_used(self._result.record), trial.id, step))
        began = time.perf_counter()
        self._stop_if_due()
        verdict = self._decisions.on_report(trial.id, step >= self._budget.max_steps)
        self._result.report_costs.append(time.perf_counter() - began)
        if event := decision_event(trial, verdict):
            self._apply(event)
        if verdict.action == "continue":
            self._schedule(trial)
            return
        assert verdict.state is not None
        assert trial.resumed is not None
        self._apply(FinishEvent(trial.id, verdict.state, step, self._now - trial.resumed))

    def _apply(self, event: Event) -> None:
        entry = Entry(self._count, self._now, event)
        self._result.record.apply(entry)
        self._result.entries.append(entry)
        self._count += 1


def sweep_event(spec: SweepSpec, finals_per_judge: float) -> SweepEvent:
    """The first event of a simulated sweep, which begins at time 0."""
    objectives = objectives_of(spec)
    return SweepEvent(
        name=spec.name,
        algorithm=spec.algorithm.type,
        objective=objectives[0],
        num_trials=spec.search.num_trials,
        max_steps=spec.budget().max_steps,
        created=0.0,
        space={path: param.model_dump() for path, param in spec.search_space.items()},
        bounds=bounds_of(spec),
        objectives=objectives,
        finals_per_judge=finals_per_judge,
    )


def checkpoint_path(trial: str, step: int) -> str:
    """Where a checkpoint would stand in the sweep's folder; nothing is written there."""
    return f"trials/{trial}/checkpoints/step-{step:06d}"


def step_of(checkpoint: str) -> int:
    """The step of a checkpoint, by its path."""
    return int(checkpoint.rsplit("-", 1)[1])
