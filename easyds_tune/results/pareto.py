"""The Pareto front of a sweep with several objectives: what no other checkpoint beats in all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from easyds_tune.journal.bounds import violation
from easyds_tune.journal.events import Objective
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.ranking import RankedTrial, finite_metric


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A checkpoint of the front; `values` in the order of the sweep's objectives."""

    trial: TrialRecord
    step: int
    checkpoint: str
    values: tuple[float, ...]


def pareto_front(record: SweepRecord) -> list[FrontPoint]:
    """Feasible checkpoints that no other one equals or beats in every objective and beats in one.

    Best first by the first objective, in a tie by the next.
    """
    points = (point for trial in record.trials.values() for point in trial_points(record, trial))
    return front_of(points, record.objectives)


def front_of(points: Iterable[FrontPoint], objectives: tuple[Objective, ...]) -> list[FrontPoint]:
    """Those of the points that no other one equals or beats in all; best first."""
    front: list[FrontPoint] = []
    for point in sorted(points, key=lambda p: (_costs(p, objectives), p.trial.number, p.step)):
        costs = _costs(point, objectives)
        # Whatever beats it comes before it; of equals the earlier trial stays.
        if not any(
            all(a <= b for a, b in zip(_costs(other, objectives), costs, strict=True))
            for other in reversed(front)
        ):
            front.append(point)
    return front


def trial_points(record: SweepRecord, trial: TrialRecord) -> list[FrontPoint]:
    """The feasible checkpoints of a trial that have a finite value for each objective."""
    found = []
    for step, checkpoint in sorted(trial.checkpoints.items()):
        report = trial.report_at(step)
        if report is None:
            continue
        values = [finite_metric(report, objective.metric) for objective in record.objectives]
        known = tuple(value for value in values if value is not None)
        if len(known) < len(values):
            continue
        outside = violation(record.bounds, report.metrics)
        if RankedTrial(trial, report, report.step, known[0], violation=outside).is_fit:
            found.append(FrontPoint(trial, report.step, checkpoint, known))
    return found


def _costs(point: FrontPoint, objectives: tuple[Objective, ...]) -> tuple[float, ...]:
    """Values with their signs such that less is better."""
    return tuple(
        -value if objective.mode == "max" else value
        for value, objective in zip(point.values, objectives, strict=True)
    )
