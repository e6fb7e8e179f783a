"""Which checkpoints the finals judge: by value, and by the odds that the finals find them inside.

A finalist is fit only if the unfavourable end of the finals' own interval keeps every bound
(`results/finals.py`). A checkpoint that the search measured just inside is likely to be rejected,
above all where the finals have fewer prompts than the search's judge.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean, pstdev
from typing import NamedTuple

from easyds_tune.journal.bounds import violation
from easyds_tune.journal.events import FinalistEvent
from easyds_tune.journal.intervals import SHARES, STANDARD_ERRORS
from easyds_tune.journal.replay import Report, SweepRecord, TrialRecord
from easyds_tune.results.finals import measured_metrics
from easyds_tune.results.ranking import RankedTrial, finite_metric, stderr_name

PER_TRIAL = 2
"""Checkpoints of one trial that a round takes: neighbours hardly differ."""
CAUTION = (0.5, 0.8, 0.99)
"""Probabilities of being found inside. The pool holds the best checkpoints that reach each one:
bold ones for the first round, cautious ones for the next."""
TRUST = 0.9
"""What a finalist's probability is multiplied by when the next one is chosen: its value is an
estimate too, so no finalist makes the others useless."""


class Limit(NamedTuple):
    """One end of a bound. sign: 1 where the metric must be at most `at`, -1 where at least."""

    metric: str
    at: float
    sign: float

    @property
    def is_at_an_end(self) -> bool:
        """Whether no share, which lies within 0 and 1, can break it."""
        return self.at >= 1 if self.sign > 0 else self.at <= 0


class Overshoot(NamedTuple):
    """How far the finals' unfavourable end lies beyond the search's value: a normal distribution.

    Both numbers are in standard errors of the search, or in units of the metric if not `in_errors`.
    """

    mean: float
    sd: float
    in_errors: bool = True


Odds = Mapping[Limit, Overshoot]


class Candidate(NamedTuple):
    """A checkpoint that may enter. cost: its objective, less is better.

    probability: that the finals find it inside every bound.
    """

    cost: float
    number: int
    step: int
    trial: str
    probability: float

    @property
    def key(self) -> tuple[str, int]:
        """(trial, step)."""
        return self.trial, self.step


def expected_odds(record: SweepRecord) -> Odds:
    """What is known before the finals have measured anything.

    The search's value is the truth plus noise of standard error s, over n prompts. The finals'
    m prompts give the standard error s·√(n/m), and their 95 % end lies 1.96 of these further out:
    end - value has the mean 1.96·s·√(n/m) and the standard deviation s·√(1 + n/m).
    """
    ratio = 1 / record.finals_per_judge
    overshoot = Overshoot(STANDARD_ERRORS * math.sqrt(ratio), math.sqrt(1 + ratio))
    return dict.fromkeys(_limits(record), overshoot)


def measured_odds(record: SweepRecord, judged: Iterable[FinalistEvent]) -> Odds:
    """What the finals' measurements so far say of the next ones, on the same prompts.

    The mean is that of the judged finalists. It is in the search's standard errors where all have
    one: these grow with a KL as its noise does.
    """
    found = dict(expected_odds(record))
    measured = [
        (record.trials[event.trial].report_at(event.step), measured_metrics(event))
        for event in judged
    ]
    for limit, expected in found.items():
        beyond, errors = [], []
        for report, metrics in measured:
            value = None if report is None else finite_metric(report, limit.metric)
            if report is None or value is None or limit.metric not in metrics:
                continue
            end = metrics[limit.metric].high if limit.sign > 0 else metrics[limit.metric].low
            beyond.append(limit.sign * (end - value))
            errors.append(_stderr(report, limit.metric))
        if beyond and all(errors):
            shares = [distance / error for distance, error in zip(beyond, errors, strict=True)]
            found[limit] = Overshoot(fmean(shares), expected.sd)
        elif beyond:
            found[limit] = Overshoot(fmean(beyond), pstdev(beyond), in_errors=False)
    return found


def candidates(record: SweepRecord, trial: TrialRecord, odds: Odds) -> Iterator[Candidate]:
    """The checkpoints of a trial that the search measured inside every bound."""
    sign = -1.0 if record.objective.mode == "max" else 1.0
    if trial.source == "finals":
        return
    for report in reports_with_checkpoint(trial):
        value = finite_metric(report, record.objective.metric)
        outside = violation(record.bounds, report.metrics)
        if RankedTrial(trial, report, report.step, value, violation=outside).is_fit:
            assert value is not None
            inside = math.prod(_probability(report, limit, odds[limit]) for limit in odds)
            yield Candidate(sign * value, trial.number, report.step, trial.id, inside)


def pool(found: Iterable[Candidate], top: int) -> list[Candidate]:
    """What finalists are chosen from: the `top` best of those that reach each of `CAUTION`.

    A checkpoint is in or out by its own numbers and those of better ones, so one that is out stays
    out when trials are added, and need not be kept.
    """
    everything = list(found)
    chosen = (_best_of(everything, top, caution) for caution in CAUTION)
    return list(dict.fromkeys(candidate for best in chosen for candidate in best))


def nominate(found: Iterable[Candidate], top: int) -> list[tuple[str, int]]:
    """The `top` candidates of the pool that raise the expected result of the finals most.

    One after another, at most two of a trial: each time the one with the largest probability of
    being found inside times its expected gain over the best that those before it give. The worst
    of the pool stands for finding nothing.
    """
    left = pool(found, top)
    worst = max((candidate.cost for candidate in left), default=0.0)
    chosen: list[Candidate] = []
    of_trial: Counter[str] = Counter()

    def order(candidate: Candidate) -> tuple[float, float, Candidate]:
        return -_gain(candidate, chosen, worst), -candidate.probability, candidate

    while left and len(chosen) < top:
        best = min(left, key=order)
        left.remove(best)
        if of_trial[best.trial] < PER_TRIAL:
            of_trial[best.trial] += 1
            chosen.append(best)
    return [candidate.key for candidate in chosen]


def reports_with_checkpoint(trial: TrialRecord) -> list[Report]:
    """What a trial reported at the steps whose checkpoints there are, by step."""
    found = (trial.report_at(step) for step in sorted(trial.checkpoints))
    return [report for report in found if report is not None]


def _best_of(found: Sequence[Candidate], top: int, caution: float) -> list[Candidate]:
    """The `top` best, at most two of a trial: by value where the probability is at least `caution`,
    then by probability."""

    def order(candidate: Candidate) -> tuple[bool, float, Candidate]:
        short = candidate.probability < caution
        return short, -candidate.probability if short else candidate.cost, candidate

    chosen: list[Candidate] = []
    of_trial: Counter[str] = Counter()
    for candidate in sorted(found, key=order):
        if len(chosen) == top:
            break
        if of_trial[candidate.trial] < PER_TRIAL:
            of_trial[candidate.trial] += 1
            chosen.append(candidate)
    return chosen


def _gain(candidate: Candidate, chosen: Sequence[Candidate], worst: float) -> float:
    """By how much a candidate raises the expected best value of the chosen that keep the bounds."""
    expected, none_yet = 0.0, 1.0
    for other in sorted(chosen):
        if other.cost > candidate.cost:
            share = none_yet * TRUST * other.probability
            expected += share * (other.cost - candidate.cost)
        none_yet *= 1 - TRUST * other.probability
    return candidate.probability * (expected + none_yet * (worst - candidate.cost))


def _probability(report: Report, limit: Limit, overshoot: Overshoot) -> float:
    """That the finals' unfavourable end keeps a limit."""
    value = finite_metric(report, limit.metric)
    if value is None:
        return 0.0
    unit = _stderr(report, limit.metric) if overshoot.in_errors else 1.0
    room = limit.sign * (limit.at - value) - overshoot.mean * unit
    if overshoot.sd * unit == 0:
        return float(room >= 0)
    return (1 + math.erf(room / (overshoot.sd * unit * math.sqrt(2)))) / 2


def _limits(record: SweepRecord) -> list[Limit]:
    """The ends of all bounds; a share's interval cannot reach beyond 0 or 1."""
    ends = [
        Limit(bound.metric, at, sign)
        for bound in record.bounds
        for at, sign in ((bound.min, -1.0), (bound.max, 1.0))
        if at is not None
    ]
    return [limit for limit in ends if not (limit.metric.endswith(SHARES) and limit.is_at_an_end)]


def _stderr(report: Report, metric: str) -> float:
    """The standard error that the search reported of a metric, 0 where it did not."""
    stderr = report.get(stderr_name(metric), 0.0)
    return stderr if math.isfinite(stderr) else 0.0
