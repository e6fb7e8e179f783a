"""Who enters the finals: checkpoints of any trial and step, by what the search measured of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from easyds_tune.journal.bounds import Bound, violation
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.intervals import interval_95
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord
from easyds_tune.results.ranking import (
    DEFAULT_TRIAL_NUMBER,
    RankedTrial,
    finite_metric,
    stderr_name,
)
from easyds_tune.spec.base import LARGEST_SEED
from easyds_tune.spec.sweep import SweepSpec

PER_TRIAL = 2
"""Checkpoints of one trial that may enter: neighbours hardly differ."""


class Retraining(NamedTuple):
    """A finalist's configuration to be trained again, on a seed of its own."""

    params: dict[str, Any]
    seed: int


def choose_finalists(record: SweepRecord, top: int) -> list[tuple[str, int]]:
    """(trial, step) of the checkpoints to judge anew, best first; none where none is feasible.

    The `top` best ones, at most two of a trial. First come those whose whole interval keeps every
    bound: the luckiest of many measured values lies inside a bound more easily than the truth. The
    default configuration's best checkpoint always enters, to be compared with.
    """
    found = (entry for trial in record.trials.values() for entry in candidates(record, trial))
    chosen = [(candidate.trial, candidate.step) for candidate in best_of(found, top)]
    if not chosen:
        return []
    default = _default_checkpoint(record)
    if default is not None and default[0] not in {trial for trial, _ in chosen}:
        chosen.append(default)
    return chosen


def retrainings(
    record: SweepRecord, finalists: Sequence[tuple[str, int]], seeds: int, seed: int
) -> list[Retraining]:
    """The distinct configurations among the finalists, each on `seeds` new seeds after `seed`.

    What is in the journal already, from before an interruption, is not asked for again.
    """
    configurations = {
        _key(record.trials[trial].params): record.trials[trial].params for trial, _ in finalists
    }
    begun = {
        (_key(trial.params), trial.seed)
        for trial in record.trials.values()
        if trial.source == "finals"
    }
    return [
        Retraining(params, fresh)
        for key, params in configurations.items()
        for fresh in ((seed + offset) % (LARGEST_SEED + 1) for offset in range(1, seeds + 1))
        if (key, fresh) not in begun
    ]


def retrained_finalists(
    record: SweepRecord, finalists: Sequence[tuple[str, int]]
) -> list[tuple[str, int]]:
    """The checkpoints of retrained finalists: the same step as the finalist's, nothing chosen."""
    wanted = [(_key(record.trials[trial].params), step) for trial, step in finalists]
    return [
        (trial.id, step)
        for trial in record.trials.values()
        if trial.source == "finals" and RankedTrial(trial, value=0.0).is_fit
        for key, step in dict.fromkeys(wanted)
        if key == _key(trial.params) and step in trial.checkpoints
    ]


def find_finalists(record: SweepRecord, spec: SweepSpec) -> list[tuple[str, int]]:
    """(trial, step) of all checkpoints to judge once the search is over, retrained ones too.

    Several objectives have a front, and no finals.
    """
    if spec.finals is None or len(spec.objectives) > 1:
        return []
    chosen = choose_finalists(record, spec.finals.top)
    return chosen + retrained_finalists(record, chosen)


class Candidate(NamedTuple):
    """A feasible checkpoint; the smaller `order`, the better."""

    order: tuple[bool, float, int, int]
    trial: str
    step: int


def candidates(record: SweepRecord, trial: TrialRecord) -> Iterator[Candidate]:
    """The checkpoints of a trial that may enter the finals."""
    objective = record.objective
    sign = -1.0 if objective.mode == "max" else 1.0
    if trial.source == "finals":
        return
    for report in reports_with_checkpoint(trial):
        value = finite_metric(report, objective.metric)
        outside = violation(record.bounds, report.metrics)
        if not RankedTrial(trial, report, report.step, value, violation=outside).is_fit:
            continue
        assert value is not None
        unsure = not all(_is_surely_inside(report, bound) for bound in record.bounds)
        order = (unsure, sign * value, trial.number, report.step)
        yield Candidate(order, trial.id, report.step)


def best_of(found: Iterable[Candidate], top: int) -> list[Candidate]:
    """The `top` best candidates, at most two of a trial, best first."""
    chosen: list[Candidate] = []
    of_trial: Counter[str] = Counter()
    for candidate in sorted(found):
        if len(chosen) < top and of_trial[candidate.trial] < PER_TRIAL:
            of_trial[candidate.trial] += 1
            chosen.append(candidate)
    return chosen


def _is_surely_inside(report: Report, bound: Bound) -> bool:
    """Whether both ends of the metric's 95 % interval keep the bound, as the search measured it."""
    value = finite_metric(report, bound.metric)
    if value is None:
        return False
    stderr = report.metrics.get(stderr_name(bound.metric), 0.0)
    ends = interval_95(bound.metric, value, stderr if math.isfinite(stderr) else 0.0)
    return all(bound.excess({bound.metric: end}) <= 0 for end in ends)


def _default_checkpoint(record: SweepRecord) -> tuple[str, int] | None:
    """The default's best checkpoint, feasible or not; None where it has none that is finite."""
    for trial in record.trials.values():
        if trial.number == DEFAULT_TRIAL_NUMBER and trial.state is not TrialState.FAILED:
            step = best_step(record, trial)
            return None if step is None else (trial.id, step)
    return None


def best_step(record: SweepRecord, trial: TrialRecord, up_to: float = math.inf) -> int | None:
    """The step of a trial's best checkpoint, feasible or not; None where it has none.

    up_to: the last step that counts.
    """
    sign = -1.0 if record.objective.mode == "max" else 1.0
    found: list[tuple[float, float, int]] = []
    for report in reports_with_checkpoint(trial):
        value = finite_metric(report, record.objective.metric)
        if value is not None and report.step <= up_to:
            found.append((violation(record.bounds, report.metrics), sign * value, report.step))
    return min(found)[-1] if found else None


def reports_with_checkpoint(trial: TrialRecord) -> list[Report]:
    """What a trial reported at the steps whose checkpoints there are, by step."""
    found = (trial.report_at(step) for step in sorted(trial.checkpoints))
    return [report for report in found if report is not None]


def _key(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
