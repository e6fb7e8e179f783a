"""Who enters the finals, round by round: checkpoints of any trial and step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from easyds_tune.decisions.nomination import (
    candidates,
    expected_odds,
    measured_odds,
    nominate,
    reports_with_checkpoint,
)
from easyds_tune.journal.bounds import violation
from easyds_tune.journal.events import FinalistEvent, FinalsEvent, TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.finals import judged_finalists, measured_metrics, measured_violation
from easyds_tune.results.ranking import DEFAULT_TRIAL_NUMBER, RankedTrial, finite_metric
from easyds_tune.spec.base import LARGEST_SEED
from easyds_tune.spec.sweep import SweepSpec

ROUNDS = 3
"""Rounds of finals at most. Each costs `top` judgements, and every further checkpoint that is tried
is another chance for one outside the bound to pass by luck."""


class Retraining(NamedTuple):
    """A finalist's configuration to be trained again, on a seed of its own."""

    params: dict[str, Any]
    seed: int


def choose_finalists(record: SweepRecord, top: int) -> list[tuple[str, int]]:
    """(trial, step) of the checkpoints of the first round; none where none is feasible.

    `top` of them, see `nominate`. The default configuration's best checkpoint always enters, to be
    compared with.
    """
    odds = expected_odds(record)
    trials = record.trials.values()
    chosen = nominate((c for trial in trials for c in candidates(record, trial, odds)), top)
    if not chosen:
        return []
    default = _default_checkpoint(record)
    if default is not None and default[0] not in {trial for trial, _ in chosen}:
        chosen.append(default)
    return chosen


def nominated(record: SweepRecord, top: int) -> list[tuple[str, int]]:
    """(trial, step) of the checkpoints of all rounds so far, without what was trained again.

    Lost ones are left out. Where none is left, finalists are chosen as for a first round.
    """
    return _left(record) or choose_finalists(record, top)


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


def find_finals(record: SweepRecord, spec: SweepSpec) -> FinalsEvent | None:
    """The round to judge once nothing runs, retrained checkpoints included; None without finals.

    Leaves out finalists whose checkpoints are lost, see `nominated`.

    Several objectives have a front, and no finals.
    """
    if spec.finals is None or len(spec.objectives) > 1:
        return None
    chosen = nominated(record, spec.finals.top)
    found = chosen + retrained_finalists(record, chosen)
    return FinalsEvent(found, max(1, record.finals_round)) if found else None


def next_round(record: SweepRecord, top: int) -> FinalsEvent | None:
    """Nominate the next round after one in which every finalist but the default breaks a bound.

    A finalist whose checkpoint is lost keeps none. Where all are lost, finalists are chosen as for
    a first round, and the number of the round stays. None where a finalist keeps all bounds, where
    no candidate is left, and after `ROUNDS`. The odds come from what the finals measured of the
    rejected finalists. Where the default keeps the bounds, only candidates that the search measured
    above it are nominated. Only bounded metrics are read, over all prompts, as for the winner: the
    finals' values of the objective are not, so the interval that is reported stays that of prompts
    which chose nothing.
    """
    if not record.finals_round:
        return None
    if not _left(record):
        chosen = choose_finalists(record, top)
        return FinalsEvent(chosen, record.finals_round) if chosen else None
    if record.finals_round >= ROUNDS:
        return None
    judged = judged_finalists(record)
    default = _compared_with(record)
    others = [event for event in judged.values() if not _is_default(record, event, default)]
    if any(_is_inside(record, event) for event in others):
        return None
    odds = measured_odds(record, others)
    found = [c for trial in record.trials.values() for c in candidates(record, trial, odds)]
    if default in judged and _is_inside(record, judged[default]):
        found = [candidate for candidate in found if candidate.cost < _cost(record, *default)]
    known = {*record.chosen, *judged}
    chosen = nominate((candidate for candidate in found if candidate.key not in known), top)
    return FinalsEvent([*record.chosen, *chosen], record.finals_round + 1) if chosen else None


def is_written(record: SweepRecord, event: FinalsEvent) -> bool:
    """Whether the record has this round already; finalists that are lost since do not count."""
    return record.finals_round == event.round and set(event.finalists) <= set(record.chosen)


def _left(record: SweepRecord) -> list[tuple[str, int]]:
    """The nominated finalists of all rounds so far whose checkpoints are not lost."""
    if not record.finals_round:
        return []
    return [
        (trial, step)
        for trial, step in record.chosen
        if record.trials[trial].source != "finals" and step in record.trials[trial].checkpoints
    ]


def _compared_with(record: SweepRecord) -> tuple[str, int] | None:
    """The default's checkpoint that the finalists of these finals are compared with, lost or not.

    Its first one among the finalists: a later round may nominate others on their own merit.
    """
    default = (key for key in record.chosen if record.trials[key[0]].number == DEFAULT_TRIAL_NUMBER)
    return next(default, None)


def _is_default(record: SweepRecord, event: FinalistEvent, default: tuple[str, int] | None) -> bool:
    """Whether this is the checkpoint that finalists are compared with, or its retraining."""
    if default is None or event.step != default[1]:
        return False
    trial, compared = record.trials[event.trial], record.trials[default[0]]
    is_retrained = trial.source == "finals" and trial.params == compared.params
    return trial is compared or is_retrained


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


def _is_inside(record: SweepRecord, event: FinalistEvent) -> bool:
    """Whether the finals found that a checkpoint, which is not lost, keeps every bound."""
    if event.step not in record.trials[event.trial].checkpoints:
        return False
    return measured_violation(record, event, measured_metrics(event)) == 0


def _cost(record: SweepRecord, trial: str, step: int) -> float:
    """The objective at a step as the search reported it, less is better."""
    report = record.trials[trial].report_at(step)
    value = None if report is None else finite_metric(report, record.objective.metric)
    if value is None:
        return math.inf
    return -value if record.objective.mode == "max" else value


def _key(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
