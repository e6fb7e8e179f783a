"""A trial leaves nothing behind: a used workbench gives the bits of a fresh one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from easyds_tune.errors import DataError, DivergedError
from easyds_tune.spec.sweep import trial_spec
from tests.trial.small import ALGORITHMS, TUTOR, Algorithm, Lab, bits, sweep_spec

OTHER_LOSS: dict[str, dict[str, Any]] = {
    "dpo": {"algorithm__loss_type": "ipo", "algorithm__beta": 0.5},
    "sft": {"algorithm__loss_type": "dft"},
    "rm": {"algorithm__center_rewards_coefficient": 0.01},
}


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    return request.param


def disturb(lab: Lab, algorithm: Algorithm) -> None:
    """Trials that differ in all they can, one stopped early, one that diverges."""
    stopped = lab.start(model__lora_r=16, model__lora_dropout=0.3, training__learning_rate=0.01)
    next(stopped)
    stopped.close()
    lab.run(steps=1, training__gradient_checkpointing=True, **OTHER_LOSS[algorithm])
    with pytest.raises(DivergedError):
        lab.run(training__learning_rate=1e30, training__max_grad_norm=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"model__lora_dropout": 0.1}, {"model__lora_r": None}])
def test_a_used_workbench_gives_the_bits_of_a_fresh_one(
    algorithm: Algorithm, changes: dict[str, Any], tmp_path: Path
) -> None:
    lab = Lab(sweep_spec(algorithm), tmp_path)
    stages = ("zero3", "zero0", "zero2")
    fresh = {zero: lab.run(lab.fresh_bench(), deepspeed=zero, **changes) for zero in stages}
    disturb(lab, algorithm)
    for zero in stages:
        assert bits(lab.run(deepspeed=zero, **changes)) == bits(fresh[zero]), zero


def test_the_base_after_a_trial_is_the_one_on_disk(algorithm: Algorithm, tmp_path: Path) -> None:
    lab = Lab(sweep_spec(algorithm), tmp_path)
    before = lab.bench._base
    assert before is not None
    modules = names_and_types(before)
    on_disk = load_file(TUTOR / "model.safetensors")
    head = {name: value.clone() for name, value in before.named_parameters() if "score" in name}

    lab.run(deepspeed="zero2", training__gradient_checkpointing=True)

    base = lab.bench._base
    assert base is before
    assert not base.training
    assert not base.is_activation_checkpointing
    assert names_and_types(base) == modules
    assert all(weight.requires_grad and weight.grad is None for weight in base.parameters())
    assert not any(module._forward_hooks for module in base.modules())
    assert "forward" not in base.__dict__
    weights = dict(base.named_parameters())
    assert all(
        torch.equal(weights[name].data, value) for name, value in on_disk.items() if name in weights
    )
    assert all(torch.equal(weights[name].data, value) for name, value in head.items())


def names_and_types(model: nn.Module) -> list[tuple[str, str]]:
    return [(name, type(module).__name__) for name, module in model.named_modules()]


def test_the_base_is_loaded_again_after_zero3_full_fine_tuning_and_an_exception(
    tmp_path: Path,
) -> None:
    lab = Lab(sweep_spec("sft"), tmp_path)
    lab.run(steps=1, deepspeed="zero3")
    assert lab.bench._base is None
    lab.run(steps=1)
    assert lab.bench._base is not None
    lab.run(steps=1, model__lora_r=None)
    assert lab.bench._base is None
    lab.run(steps=1)
    reports = lab.start()
    next(reports)
    with pytest.raises(KeyError):
        reports.throw(KeyError("the consumer failed"))
    assert lab.bench._base is None


def test_a_length_that_leaves_no_record_is_the_users_error(tmp_path: Path) -> None:
    lab = Lab(sweep_spec("rm"), tmp_path)
    with pytest.raises(DataError, match=r"algorithm\.max_length: 8 tokens leave no record"):
        lab.run(algorithm__max_length=8)
    assert len(lab.run(steps=1)) == 1


def test_a_classifier_has_no_end_tokens_and_a_language_model_has(tmp_path: Path) -> None:
    """A reward model writes no replies; asking its generation settings would be an error."""
    lent = {
        kind: Lab(sweep_spec(kind), tmp_path / kind).bench.lend(
            trial_spec(sweep_spec(kind), "000", {}, 40)
        )
        for kind in ("rm", "sft")
    }
    assert lent["rm"].end_token_ids == ()
    assert lent["sft"].tokenizer.eos_token_id in lent["sft"].end_token_ids


@pytest.mark.parametrize("kind", ["rm", "sft"])
def test_trials_of_other_lengths_are_measured_on_the_same_held_out_records(
    kind: Algorithm, tmp_path: Path
) -> None:
    bench = Lab(sweep_spec(kind), tmp_path).bench
    lab = Lab(sweep_spec(kind), tmp_path)
    long, short = lab.trial(), lab.trial(algorithm__max_length=48)
    of_long, of_short = bench.lend(long), lab.bench.lend(short)
    assert of_long.train.to_dict() != of_short.train.to_dict()
    assert of_long.held_out.to_dict() == of_short.held_out.to_dict()
