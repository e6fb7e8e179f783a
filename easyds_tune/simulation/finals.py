"""The finals of a simulated sweep: the same choice and the same events, judged on curves."""

from __future__ import annotations

from easyds_tune.decisions.finals import choose_finalists, retrained_finalists
from easyds_tune.journal.events import FinalistEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.simulation.curves import Curves
from easyds_tune.spec.sweep import SweepSpec

PROMPTS_PER_JUDGE_PROMPT = 2
"""Finals prompts where the spec names no number, for each prompt of the judge."""


def finalist_events(record: SweepRecord, spec: SweepSpec, curves: Curves) -> list[FinalistEvent]:
    """The finalists of a finished search, judged on fresh prompts; none without finals."""
    if spec.finals is None:
        return []
    prompts = spec.finals.num_prompts or PROMPTS_PER_JUDGE_PROMPT * curves.landscape.prompts
    chosen = choose_finalists(record, spec.finals.top)
    chosen += retrained_finalists(record, chosen)
    return [_judge(record, spec, curves, name, step, prompts) for name, step in chosen]


def _judge(
    record: SweepRecord, spec: SweepSpec, curves: Curves, name: str, step: int, prompts: int
) -> FinalistEvent:
    trial = record.trials[name]
    seed = spec.seed if trial.seed is None else trial.seed
    values, weights = curves.finals(trial.params, step, seed, prompts)
    return FinalistEvent(name, step, trial.checkpoints[step], values, weights)
