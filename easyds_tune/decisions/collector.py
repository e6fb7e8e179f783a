"""Which checkpoints may be deleted. A fold over the record, like all decisions; deletes nothing.

What stays is what the sweep may still need, whatever happens next: a running trial may fail, which
takes its checkpoints out of the race, and a retry may go back to any checkpoint it can resume from.
So the best is not only the best of all, but also the best without each of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from easyds_tune.decisions.finals import best_step, retrained_finalists
from easyds_tune.decisions.nomination import candidates, expected_odds, pool
from easyds_tune.journal.bounds import violation
from easyds_tune.journal.events import CollectEvent, TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.pareto import front_of, trial_points
from easyds_tune.results.ranking import (
    DEFAULT_TRIAL_NUMBER,
    UNFIT_STATES,
    RankedTrial,
    finite_metric,
)
from easyds_tune.spec.sweep import SweepSpec

RESUMABLE = 2
"""Newest checkpoints that a trial can go on from: where one is damaged, there is the other."""

Key = tuple[str, int]
"""A checkpoint: trial, step."""


@dataclass(frozen=True)
class DiskRules:
    """What decides besides the events.

    keep: how many of the best checkpoints stay; None for all. limit: bytes that all checkpoints
    together should not exceed; None for no limit. top: of the finals, 0 where none are held.
    """

    keep: int | None
    limit: int | None
    top: int


def disk_rules(spec: SweepSpec) -> DiskRules:
    """The rules of a spec."""
    holds_finals = spec.finals is not None and len(spec.objectives) == 1
    top = spec.finals.top if spec.finals is not None and holds_finals else 0
    return DiskRules(spec.output.keep, spec.output.disk_limit, top)


def to_collect(record: SweepRecord, rules: DiskRules) -> list[CollectEvent]:
    """What may be deleted now, worst first; ask again once it is, until nothing is left to do.

    First goes what `keep` leaves out, and the trainer state of what is kept for export alone.
    Where that leaves more than the limit, the worst of what is kept goes too. The events say
    nothing of the bytes that are left of a checkpoint without its trainer state: see for yourself.
    """
    resumable = set(_resumable(record))
    needed = set(_needed(record, rules.top))
    ranked = _by_worth(record)
    kept = needed.union(ranked if rules.keep is None else ranked[: rules.keep])
    events = []
    for trial, step in reversed(ranked):
        if (trial, step) in resumable:
            continue
        if (trial, step) not in kept:
            events.append(CollectEvent(trial, step, "checkpoint"))
        elif step not in record.trials[trial].final_only:
            events.append(CollectEvent(trial, step, "trainer"))
    if events:
        return events
    over = bytes_over(record, rules)
    for trial, step in reversed(ranked):
        if over > 0 and (trial, step) not in needed | resumable:
            events.append(CollectEvent(trial, step, "checkpoint"))
            over -= record.trials[trial].sizes[step]
    return events


def bytes_over(record: SweepRecord, rules: DiskRules) -> int:
    """Bytes by which the checkpoints exceed the limit, 0 or less within it.

    More than 0 where `to_collect` finds nothing more: what must stay is too much, and no trial
    should begin before others have ended.
    """
    if rules.limit is None:
        return 0
    return sum(sum(trial.sizes.values()) for trial in record.trials.values()) - rules.limit


def _by_worth(record: SweepRecord) -> list[Key]:
    """All checkpoints, best first: feasible ones, then by how little they miss the bounds, then by
    score; last those of trials that failed, and those without a score."""
    sign = -1.0 if record.objective.mode == "max" else 1.0
    found: list[tuple[bool, bool, float, float, int, int, str]] = []
    for trial in record.trials.values():
        for step in trial.checkpoints:
            report = trial.report_at(step)
            value = None if report is None else finite_metric(report, record.objective.metric)
            outside = 0.0 if report is None else violation(record.bounds, report.metrics)
            cost = math.inf if value is None else sign * value
            unfit = trial.state in UNFIT_STATES
            found.append((value is None, unfit, outside, cost, trial.number, step, trial.id))
    return [(name, step) for *_, step, name in sorted(found)]


def _resumable(record: SweepRecord) -> Iterator[Key]:
    """What trials that may run again go on from."""
    for trial in record.trials.values():
        if not trial.state.is_final:
            yield from ((trial.id, step) for step in trial.resumable()[:RESUMABLE])


def _needed(record: SweepRecord, top: int) -> Iterator[Key]:
    """What `best`, the finals and the front need, or may come to need."""
    yield from ((event.trial, event.step) for event in record.finalists)
    yield from _best(record)
    finalists = {*record.chosen, *_finalists(record, top), *_defaults(record)}
    yield from finalists
    yield from retrained_finalists(record, sorted(finalists))
    if len(record.objectives) > 1:
        yield from _front(record)


def _defaults(record: SweepRecord) -> Iterator[Key]:
    """The default configuration's best, which every finalist is compared with."""
    for trial in record.trials.values():
        if trial.number == DEFAULT_TRIAL_NUMBER and trial.state is not TrialState.FAILED:
            steps = (best_step(record, trial, cut) for cut in _cuts(trial))
            yield from ((trial.id, step) for step in steps if step is not None)


def _finalists(record: SweepRecord, top: int) -> Iterator[Key]:
    """Who the finals choose from, with and without each trial that may still run."""
    odds = expected_odds(record)
    settled = pool((c for t in _ended(record) for c in candidates(record, t, odds)), top)
    yield from (candidate.key for candidate in settled)
    for trial in _live(record):
        own = list(candidates(record, trial, odds))
        for cut in _cuts(trial):
            left = [candidate for candidate in own if candidate.step <= cut]
            yield from (candidate.key for candidate in pool([*settled, *left], top))


def _front(record: SweepRecord) -> Iterator[Key]:
    """What is on the front, with and without each trial that may still run."""
    points = (point for trial in _ended(record) for point in trial_points(record, trial))
    settled = front_of(points, record.objectives)
    yield from ((point.trial.id, point.step) for point in settled)
    for trial in _live(record):
        own = trial_points(record, trial)
        for cut in _cuts(trial):
            left = [point for point in own if point.step <= cut]
            front = front_of([*settled, *left], record.objectives)
            yield from ((point.trial.id, point.step) for point in front)


def _best(record: SweepRecord) -> Iterator[Key]:
    """What the search's own numbers put first, with and without each trial that may still run."""
    settled = sorted(found for trial in _ended(record) for found in _fit(record, trial))[:1]
    yield from ((trial, step) for *_, step, trial in settled)
    for trial in _live(record):
        own = _fit(record, trial)
        for cut in _cuts(trial):
            left = [found for found in own if found[-2] <= cut]
            yield from ((name, step) for *_, step, name in sorted([*settled, *left])[:1])


def _fit(record: SweepRecord, trial: TrialRecord) -> list[tuple[float, int, int, str]]:
    """(cost, number, step, id) of the checkpoints of a trial that may win; less is better."""
    sign = -1.0 if record.objective.mode == "max" else 1.0
    found = []
    for step in trial.checkpoints:
        report = trial.report_at(step)
        value = None if report is None else finite_metric(report, record.objective.metric)
        if report is None or value is None:
            continue
        outside = violation(record.bounds, report.metrics)
        if RankedTrial(trial, report, step, value, violation=outside).is_fit:
            found.append((sign * value, trial.number, step, trial.id))
    return found


def _ended(record: SweepRecord) -> Iterator[TrialRecord]:
    return (trial for trial in record.trials.values() if trial.state.is_final)


def _live(record: SweepRecord) -> Iterator[TrialRecord]:
    return (trial for trial in record.trials.values() if not trial.state.is_final)


def _cuts(trial: TrialRecord) -> list[float]:
    """The steps up to which a trial's checkpoints may count one day: all, or after a retry those
    up to one that it can go on from."""
    return [math.inf] if trial.state.is_final else [math.inf, *trial.resumable()]
