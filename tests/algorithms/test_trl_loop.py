"""What a trial's fields do to TRL's trainers, seen in real training."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from easyds_tune.algorithms.rm import pair_values
from easyds_tune.algorithms.trl_loop import silence_base_dropout, training_arguments
from easyds_tune.data.records import PreferencePair
from easyds_tune.spec.algorithm import DPOLoss
from tests.trial.small import ALGORITHMS, CPU, Algorithm, Lab, bits, sweep_spec, weights

LabOf = Callable[[Algorithm], Lab]


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    return request.param


def test_lora_dropout_changes_the_training(algorithm: Algorithm, lab_of: LabOf) -> None:
    """TRL would silence it for preference losses, together with the base's own dropout."""
    lab = lab_of(algorithm)
    without, with_dropout = lab.run(steps=2), lab.run(steps=2, model__lora_dropout=0.5)
    assert weights(without[-1]) != weights(with_dropout[-1])


def test_silencing_touches_dropout_alone() -> None:
    base = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.3)))
    silence_base_dropout(base)
    assert [m.p for m in base.modules() if isinstance(m, nn.Dropout)] == [0.0, 0.0]
    assert base[0].weight.requires_grad


@pytest.mark.parametrize("loss_type", get_args(DPOLoss))
def test_every_dpo_loss_trains(loss_type: str, lab_of: LabOf) -> None:
    (report,) = lab_of("dpo").run(
        steps=1, algorithm__loss_type=loss_type, algorithm__label_smoothing=0.1
    )
    assert report.metrics["train/grad_norm"] > 0


def test_dpo_starts_at_the_log_of_two_and_no_margin(lab_of: LabOf) -> None:
    """At the first step policy and reference agree: -log sigmoid(0)."""
    (report,) = lab_of("dpo").run(steps=1)
    assert report.metrics["train/loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert report.metrics["train/rewards/margins"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm__use_weighting": True},
        {"algorithm__ld_alpha": 0.5},
        {"training__gradient_checkpointing": True},
        {"training__gradient_checkpointing": True, "deepspeed": "zero3"},
        {"training__gradient_checkpointing": True, "model__lora_r": None},
        {"model__use_rslora": True, "model__lora_target_modules": ["q_proj", "v_proj"]},
        {"training__lr_scheduler_type": "warmup_stable_decay",
         "training__training_arguments": {"lr_scheduler_kwargs": {"num_decay_steps": 1}}},
    ],
)  # fmt: skip
def test_options_of_a_dpo_trial_train(changes: dict[str, Any], lab_of: LabOf) -> None:
    reports = lab_of("dpo").run(**changes)
    assert [report.step for report in reports] == [2, 3]


def test_gradient_checkpointing_changes_no_result(algorithm: Algorithm, lab_of: LabOf) -> None:
    lab = lab_of(algorithm)
    plain = lab.run(model__lora_dropout=0.1)
    recomputed = lab.run(model__lora_dropout=0.1, training__gradient_checkpointing=True)
    for one, other in zip(plain, recomputed, strict=True):
        assert other.metrics["train/loss"] == pytest.approx(one.metrics["train/loss"], rel=1e-5)


def test_accumulated_batches_make_the_step_of_one_large_batch(lab_of: LabOf) -> None:
    """Pairs count alike in DPO, so two batches of 4 give the loss of one of 8."""
    large = lab_of("dpo").run(steps=2, training__per_device_train_batch_size=8)
    small = lab_of("dpo").run(steps=2, training__gradient_accumulation_steps=2)
    assert large[-1].step == small[-1].step == 2
    assert large[-1].examples == small[-1].examples
    assert small[-1].metrics["train/loss"] == pytest.approx(
        large[-1].metrics["train/loss"], rel=1e-4
    )


def test_warm_up_below_one_is_a_share_of_the_budget(lab_of: LabOf) -> None:
    """Half of 4 steps: the rate of step 2 is half the peak, one of two warm-up steps done."""
    reports = lab_of("sft").run(
        steps=4,
        training__warmup_steps=0.5,
        training__learning_rate=1e-3,
        training__lr_scheduler_type="constant_with_warmup",
    )
    assert [report.metrics["train/learning_rate"] for report in reports] == [
        pytest.approx(5e-4),
        pytest.approx(1e-3),
    ]


def test_the_gradient_norm_is_measured_before_the_clipping(
    algorithm: Algorithm, lab_of: LabOf
) -> None:
    lab = lab_of(algorithm)
    norms = [
        lab.run(steps=1, deepspeed=zero, training__max_grad_norm=clip)[0].metrics["train/grad_norm"]
        for zero in ("zero0", "zero2")
        for clip in (0.0, 1e-3)
    ]
    assert norms == pytest.approx([norms[0]] * 4, rel=1e-5)
    assert norms[0] > 1e-3


def test_precision_follows_the_base_and_the_device(lab_of: LabOf, tmp_path: Path) -> None:
    lab = lab_of("sft")
    trial = lab.trial()
    inputs = lab.bench.lend(trial)
    arguments = training_arguments(trial, inputs, tmp_path)
    lab.bench.take_back(trial, inputs)
    assert (arguments["bf16"], arguments["fp16"], arguments["use_cpu"]) == (False, False, True)
    assert not arguments["dataloader_pin_memory"]


def test_a_trial_leaves_no_global_state_and_no_folder(
    lab_of: LabOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lab_of("dpo").run(steps=1, deepspeed="zero3")
    assert not is_deepspeed_zero3_enabled()
    assert AcceleratorState._shared_state == {}
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_trl_refuses_leave_nothing_behind(
    lab_of: LabOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = lab_of("sft")
    wanted = bits(lab.run(steps=1))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="nonsense"):
        lab.run(deepspeed="zero3", training__training_arguments={"optim": "nonsense"})
    assert not is_deepspeed_zero3_enabled()
    assert list(tmp_path.glob("*easyds-trainer*")) == []
    assert bits(lab.run(steps=1)) == wanted


def test_dropout_of_a_base_stays_off_in_preference_losses(tmp_path: Path) -> None:
    """Qwen2 has no dropout layers; one is put in to see it silenced, LoRA's beside it not."""
    from peft import LoraConfig, get_peft_model

    config = Qwen2Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    base = Qwen2ForCausalLM(config)
    base.model.layers[0].mlp.act_fn = nn.Sequential(nn.SiLU(), nn.Dropout(0.5))
    silence_base_dropout(base)
    model = get_peft_model(base, LoraConfig(lora_dropout=0.25, target_modules=["q_proj"]))
    rates = {m.p for m in model.train().modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.0, 0.25}
    assert torch.is_grad_enabled()


def test_a_pairs_margin_is_taken_off_the_difference_of_its_rewards(tmp_path: Path) -> None:
    """The first loss is the mean of -log sigmoid(chosen - rejected - margin), computed by hand."""
    lab = Lab(sweep_spec("rm"), tmp_path)
    margins = [0.0, 0.5, 2.0, None]
    pairs = [
        replace(pair, margin=margin)
        for pair, margin in zip(lab.records.train, margins, strict=False)
        if isinstance(pair, PreferencePair)
    ]
    lab.records = replace(lab.records, train=pairs)
    bench = lab.fresh_bench()
    inputs = bench.lend(lab.trial())
    assert inputs.train["margin"][:] == [0.0, 0.5, 2.0, 0.0]
    differences = pair_values(inputs.base, inputs.train, 0, 4, CPU)["eval/margin"]
    bench.take_back(lab.trial(), inputs)

    [report] = lab.run(bench, steps=1)
    by_hand = [
        math.log(1 + math.exp(-(difference - (margin or 0.0))))
        for difference, margin in zip(differences, margins, strict=True)
    ]
    assert report.metrics["train/loss"] == pytest.approx(sum(by_hand) / 4, abs=1e-5)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_no_trainer_cuts_what_the_length_limit_let_through(kind: Algorithm, lab_of: LabOf) -> None:
    lab = lab_of(kind)
    trial = lab.trial()
    inputs = lab.bench.lend(trial)
    lab.bench.take_back(trial, inputs)
    assert training_arguments(trial, inputs, Path("unused"))["max_length"] is None


@pytest.mark.parametrize(
    ("kind", "truncation"),
    [("sft", "keep_start"), ("sft", "keep_end"), ("dpo", "keep_start"), ("dpo", "keep_end"),
     ("rm", "keep_end")],
)  # fmt: skip
def test_a_trial_trains_on_cut_records(kind: Algorithm, truncation: str, lab_of: LabOf) -> None:
    lab = lab_of(kind)
    changes = {"algorithm__max_length": 50, "algorithm__truncation": truncation}
    inputs = lab.bench.lend(lab.trial(**changes))
    lab.bench.take_back(lab.trial(**changes), inputs)
    dropping = lab.bench.lend(lab.trial(algorithm__max_length=50))
    lab.bench.take_back(lab.trial(), dropping)
    assert len(inputs.train) > len(dropping.train)
    [report] = lab.run(steps=1, **changes)
    assert math.isfinite(report.metrics["train/loss"])
