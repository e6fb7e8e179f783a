"""Why the winner won, sentence by sentence, for a person: what was measured and how sure it is."""

from __future__ import annotations

import math

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.intervals import interval_95
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.bootstrap import Estimate
from easyds_tune.results.finals import Finalist, Settled, broken_bounds
from easyds_tune.results.ranking import (
    UNFIT_STATES,
    RankedTrial,
    find_default,
    find_search_winner,
    finite_metric,
    rank,
    rivals_of,
    stderr_name,
)
from easyds_tune.results.text import (
    format_difference,
    format_interval,
    format_measured,
    format_number,
)

KL = "eval/kl"


def reasons(record: SweepRecord, settled: Settled | None) -> list[str]:
    """The sentences; the first one names the winner, or says that there is none."""
    if settled is None:
        found = _of_the_search(record)
    elif settled.winner is None:
        found = _nothing_feasible(record, settled)
    else:
        found = _of_the_finals(record, settled, settled.winner)
    return found + _lost(record) + _unjudged(record) + ended_early(record)


def _lost(record: SweepRecord) -> list[str]:
    """Checkpoints that win nothing because they do not verify, a sentence each."""
    return [
        f"The checkpoint of trial {trial.id} at step {step} is left out: it is {lost.problem}."
        for trial in record.trials.values()
        for step, lost in sorted(trial.lost.items())
    ]


def ended_early(record: SweepRecord) -> list[str]:
    """Why not all trials were run, in a sentence; none where all were."""
    return [f"The search ended early: {record.stopped.rstrip('.')}."] if record.stopped else []


def _unjudged(record: SweepRecord) -> list[str]:
    """What the finals were to judge and did not; what they were to train again and could not."""
    parts = []
    judged = {(event.trial, event.step) for event in record.finalists}
    if missing := [finalist for finalist in record.chosen if finalist not in judged]:
        parts.append(
            f"The finals are incomplete: {len(missing)} of {len(record.chosen)} finalists were "
            "not judged."
        )
    again = [trial for trial in record.trials.values() if trial.source == "finals"]
    if failed := [trial for trial in again if trial.state in UNFIT_STATES]:
        parts.append(
            f"{len(failed)} of {len(again)} trainings on new seeds failed: "
            f"{', '.join(f'{trial.id} {trial.state}' for trial in failed)}."
        )
    return parts


def _of_the_finals(record: SweepRecord, settled: Settled, winner: Finalist) -> list[str]:
    prompts = next(
        len(event.values[record.objective.metric][1::2])
        for event in record.finalists
        if (event.trial, event.step) == (winner.trial.id, winner.step)
    )
    what = "held-out records" if _is_of_records(record) else "prompts"
    parts = [
        f"{_name(winner).capitalize()} is the best of {_count(settled.finalists)}: "
        f"{record.objective.metric} {_interval(winner.reported)} on {prompts} {what} "
        f"that no decision has seen{_search(winner)}."
    ]
    bounded = {bound.metric for bound in record.bounds}
    for bound in record.bounds:
        parts.append(f"{_measured(winner, bound)}: {_rule(bound)}.")
    if KL not in bounded and record.objective.metric != KL and KL in winner.metrics:
        # A high reward far from the start is often a reward model fooled by broken text.
        far = _interval(winner.metrics[KL])
        parts.append(f"It moved {far} nats per token away from the model it started from.")
    if len(winner.trainings) > 1:
        parts.append(_trainings(winner))
    if winner is settled.default:
        parts.append("It is the default configuration: the search found nothing better.")
    elif settled.default is not None:
        unfit = "" if settled.default.is_feasible else ", which is outside a bound"
        parts.append(
            _over(settled.over_default, f"the default configuration{unfit}", settled.default)
        )
    rival = settled.runner_up
    if rival is not None and rival is not settled.default:
        parts.append(_over(settled.over_runner_up, f"the runner-up, {_name(rival)},", rival))
    return parts


def _nothing_feasible(record: SweepRecord, settled: Settled) -> list[str]:
    nearest = settled.nearest_miss
    assert nearest is not None
    missed = [
        f"{_measured(nearest, bound)}, must be {_rule(bound)}, and {why}"
        for bound, why in broken_bounds(nearest, record.bounds)
    ]
    return [
        f"No trial is fit to win: none of {_count(settled.finalists)} surely keeps all bounds.",
        f"The nearest miss is {_name(nearest)}, by {nearest.violation:.2g} of a bound's width: "
        f"{'; '.join(missed)}.",
    ]


def _over(gap: Estimate | None, whom: str, other: Finalist) -> str:
    text = _interval(other.reported)
    if gap is None:
        return f"{whom[0].upper()}{whom[1:]} has {text}."
    stderr = (gap.high - gap.low) / 4
    by = (
        f"{format_difference(gap.value, stderr)}, 95 % interval "
        f"{format_difference(gap.low, stderr)} to {format_difference(gap.high, stderr)}"
    )
    start = "It is not distinguishable from" if gap.holds_zero else "It differs from"
    return f"{start} {whom} with {text}: {by}."


def _search(winner: Finalist) -> str:
    if winner.search is None:
        return ""
    return f" (search: {format_measured(winner.search, winner.search_stderr)}, biased upward)"


def _trainings(winner: Finalist) -> str:
    mean = math.fsum(winner.trainings) / len(winner.trainings)
    spread = math.fsum((value - mean) ** 2 for value in winner.trainings)
    spread = (spread / (len(winner.trainings) - 1)) ** 0.5
    shown = ", ".join(format_number(value) for value in winner.trainings)
    return (
        f"Its configuration was trained on {len(winner.trainings)} seeds: {shown}, mean "
        f"{format_number(mean)}, standard deviation {format_number(spread)}."
    )


def _measured(finalist: Finalist, bound: Bound) -> str:
    """A bounded metric as the finals measured it, else as the search reported it."""
    measured = finalist.metrics.get(bound.metric)
    if measured is not None:
        return f"{bound.metric} {_interval(measured)}"
    report = next((r for r in finalist.trial.reports if r.step == finalist.step), None)
    value = finite_metric(report, bound.metric) if report else None
    return f"{bound.metric} {'is missing' if value is None else format_number(value)} in the search"


def _rule(bound: Bound) -> str:
    return str(bound).removeprefix(f"{bound.metric} ")


def _interval(measured: Estimate) -> str:
    return format_interval(measured.value, measured.low, measured.high)


def _name(finalist: Finalist) -> str:
    return f"trial {finalist.trial.id} at step {finalist.step}"


def _count(finalists: list[Finalist]) -> str:
    return "1 finalist" if len(finalists) == 1 else f"{len(finalists)} finalists"


def _is_of_records(record: SweepRecord) -> bool:
    return record.algorithm == "rm" or record.objective.metric == "eval/loss"


def _of_the_search(record: SweepRecord) -> list[str]:
    """Without finals: the search's own numbers, whose best is the luckiest as well."""
    ranking = rank(record)
    winner, default = find_search_winner(record, ranking), find_default(ranking)
    metric = record.objective.metric
    if winner is None:
        return _nothing_fit(record, ranking)
    extreme = "highest" if record.objective.mode == "max" else "lowest"
    parts = [
        f"Trial {winner.trial.id} at step {winner.step} has the {extreme} {metric}, "
        f"{format_measured(winner.value, winner.stderr)}, of {_count_fit(ranking)}."
    ]
    if metric != KL and winner.report is not None:
        # A high reward far from the start is often a reward model fooled by broken text.
        kl = finite_metric(winner.report, KL)
        if kl is not None:
            far = format_measured(kl, finite_metric(winner.report, stderr_name(KL)))
            parts.append(f"It moved {far} nats per token away from the model it started from.")
    if default is not None and winner.trial is default.trial:
        parts.append("It is the default configuration: the search found nothing better.")
    elif default is not None and default.value is not None:
        unfit = "" if default.is_fit else f" ({_why_unfit(default)})"
        parts.append(f"The default configuration{unfit} has {_compare(winner, default)}.")
    rival = next((other for other in rivals_of(ranking, winner) if other is not default), None)
    if rival is not None:
        parts.append(f"The runner-up, trial {rival.trial.id}, has {_compare(winner, rival)}.")
        parts.append("These are the search's own numbers, the winner's biased upward: no finals.")
    if winner.checkpoint is None:
        parts.append("It has no checkpoint, so it cannot be exported.")
    return parts


def _nothing_fit(record: SweepRecord, ranking: list[RankedTrial]) -> list[str]:
    nearest = nearest_miss(ranking)
    if nearest is None or nearest.report is None:
        return [
            f"No trial is fit to win: none of {len(ranking)} kept a finite "
            f"{record.objective.metric}."
        ]
    missed = []
    for bound in record.bounds:
        if bound.excess(nearest.report.metrics) > 0:
            value = finite_metric(nearest.report, bound.metric)
            stderr = finite_metric(nearest.report, stderr_name(bound.metric))
            shown = "is missing" if value is None else format_measured(value, stderr)
            missed.append(f"{bound.metric} {shown}, must be {_rule(bound)}")
    return [
        f"No trial is fit to win: none of {len(ranking)} has a checkpoint inside all bounds.",
        f"The nearest miss is trial {nearest.trial.id} at step {nearest.step}, by "
        f"{nearest.violation:.2g} of a bound's width: {'; '.join(missed)}.",
    ]


def nearest_miss(ranking: list[RankedTrial]) -> RankedTrial | None:
    """Where no trial is fit, the one whose best report misses the bounds least."""
    if any(ranked.is_fit for ranked in ranking):
        return None
    return next((ranked for ranked in ranking if ranked.violation > 0), None)


def _why_unfit(ranked: RankedTrial) -> str:
    return "outside a bound" if ranked.violation > 0 else str(ranked.trial.state)


def _count_fit(ranking: list[RankedTrial]) -> str:
    """The trials that were compared, in words."""
    fit = sum(ranked.is_fit for ranked in ranking)
    if fit == len(ranking):
        return f"{fit} trial" if fit == 1 else f"{fit} trials"
    return "the 1 trial fit to win" if fit == 1 else f"the {fit} trials fit to win"


def _compare(winner: RankedTrial, other: RankedTrial) -> str:
    """The other's value, and whether the gap is more than two standard errors."""
    text = format_measured(other.value, other.stderr)
    gap = difference_of(winner, other)
    if gap is None or gap.low == gap.high:
        return text
    if gap.holds_zero:
        return f"{text}: not distinguishable, the gap may be chance"
    return f"{text}: {abs(gap.value) / (gap.high - gap.value) * 1.96:.1f} standard errors away"


def difference_of(one: RankedTrial, other: RankedTrial) -> Estimate | None:
    """`one` minus `other` as the search measured them, None where one has no value.

    The errors are added as if independent, which common prompts make too wide rather than too
    narrow; without them the interval is a point.
    """
    if one.value is None or other.value is None:
        return None
    both = one.stderr is not None and other.stderr is not None
    stderr = math.hypot(one.stderr or 0.0, other.stderr or 0.0) if both else 0.0
    value = one.value - other.value
    return Estimate(value, *interval_95("", value, stderr))
