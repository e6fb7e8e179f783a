"""The finals of a simulated sweep: the same events, judged on curves."""

from __future__ import annotations

from easyds_tune.journal.events import FinalistEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.simulation.curves import Curves
from easyds_tune.spec.sweep import SweepSpec

PROMPTS_PER_JUDGE_PROMPT = 2
"""Finals prompts where the spec names no number, for each prompt of the judge."""


def judge_finalist(
    record: SweepRecord, spec: SweepSpec, curves: Curves, name: str, step: int
) -> FinalistEvent:
    """A checkpoint on fresh prompts."""
    assert spec.finals is not None
    prompts = spec.finals.num_prompts or PROMPTS_PER_JUDGE_PROMPT * curves.landscape.prompts
    trial = record.trials[name]
    seed = spec.seed if trial.seed is None else trial.seed
    values, weights = curves.finals(trial.params, step, seed, prompts)
    return FinalistEvent(name, step, trial.checkpoints[step], values, weights)
