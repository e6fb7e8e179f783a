"""The guard: what a report breaks, before any scheduler sees it. A pure function of the reports."""

from __future__ import annotations

import math
from dataclasses import dataclass

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import Objective, TrialState
from easyds_tune.journal.replay import Report, TrialRecord

WATCHED = ("train/loss", "train/grad_norm")
"""Metrics that end a trial where they are reported and not finite."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the guard says of a trial's newest report.

    state: what the trial becomes, None where it may go on although a soft bound is broken.
    """

    state: TrialState | None
    reason: str


def inspect(
    trial: TrialRecord, objectives: tuple[Objective, ...], bounds: tuple[Bound, ...]
) -> Finding | None:
    """What is wrong with the newest report of a trial; None where nothing is.

    A value that is not finite comes before any bound, a hard bound before a soft one.
    """
    report = trial.reports[-1]
    metrics = report.metrics
    for name in [objective.metric for objective in objectives]:
        if name not in metrics:
            return Finding(TrialState.DIVERGED, f"{name} is missing at step {report.step}")
    for name in (*(objective.metric for objective in objectives), *WATCHED):
        if not math.isfinite(metrics.get(name, 0.0)):
            return Finding(TrialState.DIVERGED, f"{name} is {metrics[name]} at step {report.step}")
    findings = [found for bound in bounds if (found := _broken(trial, bound))]
    return min(findings, key=lambda found: found.state is None, default=None)


def _broken(trial: TrialRecord, bound: Bound) -> Finding | None:
    """A bound that the newest `patience` reports all broke, from its step on."""
    latest = [report for report in trial.reports if report.step >= bound.from_step]
    latest = latest[-bound.patience :]
    if len(latest) < bound.patience or any(bound.excess(r.metrics) <= 0 for r in latest):
        return None
    reason = f"{_shown(latest[-1], bound.metric)}, must be {str(bound).removeprefix(bound.metric)}"
    reason = " ".join(reason.split())
    if bound.patience > 1:
        reason += f", {bound.patience} reports in a row"
    return Finding(TrialState.BOUNDED if bound.hard else None, reason)


def _shown(report: Report, metric: str) -> str:
    value = report.metrics.get(metric)
    return f"{metric} is missing" if value is None else f"{metric} is {value:.4g}"
