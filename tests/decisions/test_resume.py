"""A sweep that is taken up at any line of its journal ends as it would have without the cut."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from easyds_tune.decisions.decider import Decider
from easyds_tune.decisions.make import make_decider
from easyds_tune.journal.replay import SweepRecord, TrialRecord, replay
from easyds_tune.simulation.curves import Curves, load_landscape
from easyds_tune.simulation.discrete import SimulatedSweep, simulate
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.simulated import curves_for
from tests.simulation.landscapes import sweep_spec

LANDSCAPES = Path(__file__).parents[1] / "benchmarks" / "decisions" / "landscapes"


def what_it_came_to(record: SweepRecord) -> list[object]:
    """All of a sweep but times, attempts and that it went on."""
    return [
        [_shape(trial) for trial in record.trials.values()],
        record.stopped,
        record.chosen,
        record.finalists,
    ]


def _shape(trial: TrialRecord) -> tuple[object, ...]:
    decisions = [d for d in trial.decisions if d.action != "resume"]
    reports = [(report.step, report.metrics) for report in trial.reports]
    return trial.id, trial.params, trial.source, trial.seed, trial.state, decisions, reports


def spec_of(scheduler: str, sampler: str) -> SweepSpec:
    return sweep_spec(
        training={"max_steps": 54, "eval_steps": 6},
        search_space={
            "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "algorithm.beta": {"low": 0.03, "high": 0.5, "log": True},
        },
        search={"num_trials": 14, "sampler": sampler},
        scheduler={"type": scheduler},
        bounds={"eval/kl": {"max": 0.2}},
        finals={"top": 3, "seeds": 1},
        stop={"no_improvement": 9},
    )


def run(spec: SweepSpec, curves: Curves, begun: SweepRecord | None = None) -> SimulatedSweep:
    def decide(record: SweepRecord) -> Decider:
        return make_decider(spec, record, slots=1)

    return simulate(spec, curves, decide, 1, begun)


@pytest.mark.parametrize("scheduler", ["asha", "asha_stop", "halving", "median"])
@pytest.mark.parametrize("sampler", ["tpe"])
def test_a_sweep_cut_at_any_line_decides_as_one_that_was_not(scheduler: str, sampler: str) -> None:
    spec = spec_of(scheduler, sampler)
    curves = curves_for(spec, load_landscape(LANDSCAPES / "hacking.yaml"))
    whole = run(spec, curves)
    expected = what_it_came_to(whole.record)
    lines = len(whole.entries)
    for count in range(1, lines, 7):
        begun = replay(copy.deepcopy(whole.entries[:count]))
        assert what_it_came_to(run(spec, curves, begun).record) == expected, f"cut at {count}"
