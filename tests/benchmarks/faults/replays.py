"""Whether a journal decides by itself: its events in their order, given to a fresh decider."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from easyds_tune.decisions.decider import Decider, GoOn, New, Proposal, decision_event
from easyds_tune.decisions.make import make_decider
from easyds_tune.journal.events import (
    DecideEvent,
    Entry,
    FinishEvent,
    ReportEvent,
    ResumeEvent,
    StartEvent,
    SuggestEvent,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.spec.load import validate
from easyds_tune.spec.resources import slot_count
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults.place import Place

GOES_ON = ("promote", "resume")


def replay_problem(place: Place, name: str) -> str:
    """The first decision of a sweep's journal that a decider does not take again, or nothing."""
    resolved = json.loads((our.folder_of(place, name) / "spec.resolved.json").read_text())
    spec, points = validate(resolved["spec"]), resolved.get("points", [])
    problem = first_other_decision(
        spec,
        our.entries(place, name),
        slot_count(spec.resources),
        resolved["train_records"],
        points,
    )
    return problem and f"{name}: {problem}"


def first_other_decision(
    spec: SweepSpec,
    found: list[Entry],
    slots: int,
    records: int | None = None,
    points: Sequence[dict[str, Any]] = (),
) -> str:
    """The first decision of some entries that a decider does not take again; empty if none.

    Every suggestion, every verdict on a report and every promotion is asked for anew.
    """
    record = SweepRecord.begin(found[0])

    def decider_of_now() -> Decider:
        return make_decider(spec, record, slots, records, points)

    decider = decider_of_now()
    for number, entry in enumerate(found[1:], start=1):
        event, where = entry.event, f"event {entry.seq}"
        if isinstance(event, ResumeEvent):
            decider = decider_of_now()
        elif isinstance(event, SuggestEvent):
            proposal = decider.propose() if isinstance(decider.next(), New) else None
            chosen = Proposal(event.number, event.params, event.source, event.seed)
            if proposal != chosen:
                return f"{where}: {proposal} where the journal has {chosen}"
        elif isinstance(event, DecideEvent) and event.action in GOES_ON:
            decision = decider.next()
            wanted = GoOn(event.trial, event.by, event.action, event.reason)  # type: ignore[arg-type]
            if decision != wanted:
                return f"{where}: {decision} where the journal has {wanted}"
        record.apply(entry)
        waiting = record.trials.get(record.undecided or "")
        if isinstance(event, ResumeEvent) and waiting and waiting.step in waiting.checkpoints:
            # The driver died before it decided: the one that took over did, with what comes next.
            budget = trial_spec(spec, waiting.id, waiting.params, records).budget
            decider.on_report(waiting.id, waiting.step >= budget.max_steps)
        if isinstance(event, ReportEvent):
            budget = trial_spec(
                spec, event.trial, record.trials[event.trial].params, records
            ).budget
            decided = decider.on_report(event.trial, event.step >= budget.max_steps)
            problem = _other_verdict(
                decision_event(record.trials[event.trial], decided),
                decided.state,
                _what_follows(found[number + 1 :], event.trial),
            )
            if problem:
                return f"{where}: {problem}"
    return ""


def _what_follows(later: list[Entry], trial: str) -> list[DecideEvent | FinishEvent]:
    """What the journal says of a trial between one report and its next run or report."""
    found: list[DecideEvent | FinishEvent] = []
    for entry in later:
        match entry.event:
            case ReportEvent(trial=of) | StartEvent(trial=of) if of == trial:
                break
            case DecideEvent(trial=of, action=action) if of == trial and action in GOES_ON:
                break
            case DecideEvent(trial=of) | FinishEvent(trial=of) as event if of == trial:
                found.append(event)
            case _:
                pass
    return found


def _other_verdict(decide: DecideEvent | None, state: Any, said: list[Any]) -> str:
    decisions = [event for event in said if isinstance(event, DecideEvent)]
    ends = [event.state for event in said if isinstance(event, FinishEvent)]
    if decisions != ([decide] if decide else []):
        return f"{decide} where the journal has {decisions}"
    if state is not None and ends[:1] != [state]:
        return f"a trial becomes {state} where the journal has {ends}"
    return ""
