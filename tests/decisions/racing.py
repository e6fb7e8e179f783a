"""Drive a decider by hand: a record fed with events, and no clock but the order of calls."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from easyds_tune.decisions.decider import (
    Decider,
    GoOn,
    New,
    Next,
    Over,
    Verdict,
    decision_event,
)
from easyds_tune.decisions.rules import Rules
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    CheckpointEvent,
    DecideEvent,
    Entry,
    Event,
    FinishEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord, replay
from easyds_tune.spec.stop import StopSpec

Curve = Callable[[dict[str, Any], int], dict[str, float]]
"""(parameters, step) -> what a trial reports there."""


def rules(**changes: Any) -> Rules:
    """Nine trials of 27 steps, one slot, rungs at 3 and 9."""
    return Rules(
        **{
            "objective": Objective("eval/reward", "max"),
            "bounds": (),
            "scheduler": "asha",
            "rungs": (3, 9),
            "reduction_factor": 3.0,
            "num_trials": 9,
            "slots": 1,
            "gpus": 0.0,
            "stop": StopSpec(),
            "seed": 0,
            "top": 2,
            "seeds": 0,
        }
        | changes
    )


class Race:
    """A sweep of trials whose only parameter is ``x``: 0.0 for the default, else `xs` in order.

    Each event is applied to the record, and kept in `entries`, a journal without a file.
    """

    def __init__(
        self,
        curve: Curve,
        xs: list[float] | None = None,
        every: int = 3,
        max_steps: int = 27,
        points: list[dict[str, Any]] | None = None,
        **changes: Any,
    ) -> None:
        self.rules = rules(**changes)
        self.curve, self.every, self.max_steps = curve, every, max_steps
        self.xs = [float(n) for n in range(1, 100)] if xs is None else xs
        self.points = points or []
        begin = SweepEvent(
            "race", "dpo", self.rules.objective, self.rules.num_trials, max_steps, 0.0,
            bounds=self.rules.bounds,
        )  # fmt: skip
        self.entries = [Entry(0, 0.0, begin)]
        self.record = SweepRecord.begin(self.entries[0])
        self.now = 0.0
        self.log: list[str] = []
        self.decider = self.make_decider(self.record)

    def make_decider(self, record: SweepRecord) -> Decider:
        return Decider(self.rules, record, self.suggest, {"x": 0.0}, self.points)

    def suggest(self, number: int, record: SweepRecord) -> dict[str, Any] | None:
        return {"x": self.xs[number - 1]} if number <= len(self.xs) else None

    def append(self, event: Event) -> None:
        entry = Entry(len(self.entries), self.now, event)
        self.entries.append(entry)
        self.record.apply(entry)

    def start(self) -> str | None:
        proposal = self.decider.propose()
        if proposal is None:
            return None
        name = f"{proposal.number:03d}"
        self.append(
            SuggestEvent(name, proposal.number, proposal.params, proposal.source, proposal.seed)
        )
        self.append(StartEvent(name, 1))
        self.log.append(f"start {name}")
        return name

    def append_trial(self, name: str, params: dict[str, Any]) -> None:
        """A trial that no decider asked for."""
        self.append(SuggestEvent(name, len(self.record.trials), params, "sampler"))
        self.append(StartEvent(name, 1))

    def promote(self, decision: GoOn) -> str:
        trial = self.record.trials[decision.trial]
        self.append(DecideEvent(trial.id, trial.step, decision.by, "promote", decision.reason))
        self.append(StartEvent(trial.id, trial.attempt + 1))
        self.log.append(f"promote {trial.id}")
        return trial.id

    def report(self, name: str, step: int, metrics: dict[str, float]) -> Verdict:
        self.append(ReportEvent(name, step, metrics))
        self.append(CheckpointEvent(name, step, f"trials/{name}/checkpoints/{step}", 1))
        self.stop_if_due()
        verdict = self.decider.on_report(name, step >= self.max_steps)
        if event := decision_event(self.record.trials[name], verdict):
            self.append(event)
        if verdict.state is not None:
            self.append(FinishEvent(name, verdict.state, step, 1.0))
            self.log.append(f"{verdict.state} {name} {step}")
        return verdict

    def stop_if_due(self) -> None:
        if event := self.decider.stop_event(self.now):
            self.append(event)

    def next(self) -> Next:
        self.stop_if_due()
        return self.decider.next()

    def step(self, name: str) -> bool:
        """Let a trial come to its next report; whether it goes on after it."""
        trial = self.record.trials[name]
        step = trial.step + self.every
        verdict = self.report(name, step, self.curve(trial.params, step))
        return verdict.action == "continue"

    def run(self, until: float = float("inf")) -> SweepRecord:
        """Run to the end (or to a time), every report taking as long as any other."""
        due: list[tuple[float, int, str]] = []
        order = 0
        while self.now < until:
            while not isinstance(decision := self.next(), Over):
                name: str | None
                if isinstance(decision, New):
                    name = self.start()
                    if name is None:
                        continue
                elif isinstance(decision, GoOn):
                    name = self.promote(decision)
                else:
                    break
                order += 1
                heapq.heappush(due, (self.now + 1, order, name))
            if isinstance(decision, Over):
                assert not due
                for trial in list(self.record.trials.values()):
                    if trial.state is TrialState.PAUSED:
                        self.append(FinishEvent(trial.id, TrialState.PRUNED, trial.step, 0.0))
                break
            self.now, _, name = heapq.heappop(due)
            if self.step(name):
                order += 1
                heapq.heappush(due, (self.now + 1, order, name))
        return self.record

    def replayed(self) -> SweepRecord:
        return replay(self.entries)

    def steps(self) -> dict[str, int]:
        return {name: trial.step for name, trial in self.record.trials.items()}


def by_x(params: dict[str, Any], step: int) -> dict[str, float]:
    """The larger x, the better, at every step."""
    return {"eval/reward": params["x"] + step / 1000}


KL = Bound("eval/kl", max=0.2)
