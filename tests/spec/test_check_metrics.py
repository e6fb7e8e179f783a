from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.spec.check import budget_problems, spec_problems, sweep_problems
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
LOSS = {"metric": "eval/loss"}
ACCURACY = {"metric": "eval/accuracy"}


@pytest.mark.parametrize(
    ("bounds", "problem"),
    [
        ({"train/grd_norm": {"max": 1}},
         "bounds.train/grd_norm: rm does not report train/grd_norm; did you mean train/grad_norm?"),
        ({"eval/kl": {"max": 1}}, "bounds.eval/kl: rm does not report eval/kl; did you mean"),
        ({"eval/loss": [{"min": 1}, {"max": 0.5}]},
         "bounds.eval/loss: its bounds must leave room for a value, got min=1 and max=0.5"),
        ({"eval/loss": {"max": 1, "from_step": 31}},
         "bounds.eval/loss.from_step: must be within the 30 steps of a trial, got 31; lower it"),
        ({"eval/loss": [{"max": 1}, {"max": 2, "patience": 4}]},
         "bounds.eval/loss.1.patience: must be at most 3, the reports from step 0 on, got 4"),
        ({"eval/loss": {"max": 1, "patience": 3, "from_step": 11}},
         "bounds.eval/loss.patience: must be at most 2, the reports from step 11 on, got 3"),
    ],
)  # fmt: skip
def test_a_bound_that_no_report_could_break_is_refused(
    spec: Make, bounds: dict[str, Any], problem: str
) -> None:
    [found] = spec_problems(spec(bounds=bounds))
    assert found.startswith(problem)


def test_sound_bounds_have_no_problem(spec: Make) -> None:
    bounds = {
        "eval/loss": [{"max": 1}, {"max": 0.5, "from_step": 30}],
        "train/grad_norm": {"max": 9, "patience": 2, "from_step": 11, "hard": False},
    }
    assert spec_problems(spec(bounds=bounds)) == []


def test_a_bound_on_replies_needs_a_judge(spec: Make) -> None:
    fields = {"algorithm": {"type": "sft"}, "objective": LOSS, "bounds": {"eval/kl": {"max": 1}}}
    assert spec_problems(spec(**fields)) == [
        "judge: is required and missing, because eval/kl has a bound"
    ]


def test_a_bound_on_the_value_head_needs_one_in_every_trial(ppo: Make) -> None:
    bound = {"train/value_loss": {"max": 1}}
    assert spec_problems(ppo(bounds=bound)) == []
    fields = {"algorithm.advantage_estimator": "rloo", "algorithm.num_generations": 4}
    assert spec_problems(ppo(bounds=bound, **fields)) == [
        "bounds.train/value_loss: only trials with a value head report train/value_loss; remove "
        "it, or train all with advantage_estimator: gae"
    ]


def test_a_bound_on_a_gpu_needs_one(spec: Make) -> None:
    sweep = spec({"model.lora_r": [4, 8, 16]}, bounds={"memory/gpu_peak_mib": {"max": 9}},
                 search={"num_trials": 3})  # fmt: skip
    assert spec_problems(sweep) == []
    on_cpu = sweep.with_params({"resources.gpus_per_trial": 0})
    assert sweep_problems(on_cpu) == [
        "bounds.memory/gpu_peak_mib: needs a GPU, and trials have none here; remove it"
    ]


def test_a_budget_in_epochs_is_held_against_bounds_once_the_records_are_known(spec: Make) -> None:
    bounds = {"eval/loss": {"max": 1, "from_step": 20}}
    sweep = spec(training={"num_train_epochs": 1}, bounds=bounds)
    assert spec_problems(sweep) == []
    assert budget_problems(sweep, 160) == []
    [found] = budget_problems(sweep, 80)
    assert found.startswith("bounds.eval/loss.from_step: must be within the 10 steps")


def test_several_objectives_are_written_as_a_list_and_the_first_ranks(spec: Make) -> None:
    sweep = spec(objective=[ACCURACY, LOSS, {"metric": "train/num_tokens"}])
    assert spec_problems(sweep) == []
    assert sweep.objective.metric == "eval/accuracy"
    assert [objective.mode for objective in sweep.objectives] == ["max", "min", "min"]
    assert SweepSpec.model_validate(sweep.model_dump()) == sweep


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"objective": [ACCURACY, LOSS, LOSS]},
         "objective.2.metric: must differ from the others, got eval/loss twice; remove one"),
        ({"objective": [{"metric": "time/train_seconds"}]},
         "objective.metric: time/train_seconds says nothing of what was learnt"),
        ({"objective": [ACCURACY, {"metric": "eval/los"}]},
         "objective.1.metric: rm does not report eval/los; did you mean eval/loss?"),
        ({"objective": [ACCURACY, LOSS], "search.sampler": "cmaes"},
         "search.sampler: must take several objectives, and cmaes takes one, got 2; set tpe"),
        ({"objective": [ACCURACY, LOSS], "scheduler.type": "asha"},
         "scheduler.type: must be none for several objectives, which no rung can rank, got asha"),
    ],
)  # fmt: skip
def test_objectives_that_cannot_be_compared_are_refused(
    spec: Make, fields: dict[str, Any], problem: str
) -> None:
    [found] = spec_problems(spec(**fields))
    assert found.startswith(problem)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random", "qmc", "grid"])
def test_these_samplers_take_several_objectives(spec: Make, sampler: str) -> None:
    fields = {"objective": [ACCURACY, LOSS], "search.sampler": sampler}
    assert spec_problems(spec({"model.lora_r": [4, 8]}, **fields)) == []
