"""The finals of a simulated sweep: the same events, judged on curves."""

from __future__ import annotations

from easyds_tune.journal.events import DEFAULT_FINALS_PER_JUDGE, FinalistEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.simulation.curves import Curves
from easyds_tune.spec.sweep import SweepSpec


def finals_prompts(spec: SweepSpec, curves: Curves) -> int:
    """How many fresh prompts a finalist is judged on."""
    named = spec.finals.num_prompts if spec.finals is not None else None
    return named or DEFAULT_FINALS_PER_JUDGE * curves.landscape.prompts


def finals_per_judge(spec: SweepSpec, curves: Curves) -> float:
    """How many of them there are for each prompt of the search."""
    return finals_prompts(spec, curves) / curves.landscape.prompts


def judge_finalist(
    record: SweepRecord, spec: SweepSpec, curves: Curves, name: str, step: int
) -> FinalistEvent:
    """A checkpoint on fresh prompts."""
    trial = record.trials[name]
    seed = spec.seed if trial.seed is None else trial.seed
    values, weights = curves.finals(trial.params, step, seed, finals_prompts(spec, curves))
    return FinalistEvent(name, step, trial.checkpoints[step], values, weights)
