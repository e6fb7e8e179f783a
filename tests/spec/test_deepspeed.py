from __future__ import annotations

from pathlib import Path

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.spec.deepspeed import (
    PRESETS,
    batch_problems,
    clipping_problems,
    deepspeed_config,
    filled_config,
    optimizer_on_cpu,
    precision_problems,
    preset,
    zero_stage,
)
from easyds_tune.spec.training import TrainingSpec


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_preset_is_a_zero_stage_with_the_batch_left_to_the_spec(stage: int) -> None:
    config = deepspeed_config(PRESETS[stage])
    assert zero_stage(config) == stage
    assert batch_problems(config, 8, 4) == []


def test_a_json_file_and_an_inline_mapping_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('\ufeff{"zero_optimization": {"stage": 1}}', encoding="utf-8")
    assert zero_stage(deepspeed_config(str(path))) == 1
    assert deepspeed_config({"steps_per_print": 1}) == {"steps_per_print": 1}
    assert zero_stage({}) == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "must be one of zero0, zero1, zero2, zero3 or a JSON file, got"),
        (b"{", "cannot be read as JSON: Expecting property name"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[1]", "must hold a JSON object, got list"),
        (b"[" * 100_000, "cannot be read as JSON"),
    ],
    ids=["missing", "cut", "binary", "list", "deep"],
)
def test_a_file_that_is_no_config_is_refused(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=problem):
        deepspeed_config(str(path))


@pytest.mark.parametrize("stage", ["auto", 4, -1, "2", 2.0, True, None, [1]])
def test_a_stage_that_zero_does_not_have_is_refused(stage: object) -> None:
    with pytest.raises(SpecError) as caught:
        deepspeed_config({"zero_optimization": {"stage": stage}})
    assert caught.value.problems == [
        f"deepspeed.zero_optimization.stage: must be 0, 1, 2 or 3, got {stage!r}; write one"
    ]


@pytest.mark.parametrize("zero", [True, 2, "auto", None])
def test_a_zero_section_that_is_no_mapping_is_refused(zero: object) -> None:
    with pytest.raises(SpecError, match="zero_optimization: must be a mapping such as"):
        deepspeed_config({"zero_optimization": zero})


def test_sections_that_would_overrule_the_spec_are_refused_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"optimizer": {"params": {"lr": 1}}, "scheduler": {}}', encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        deepspeed_config(str(path))
    assert caught.value.problems == [
        "deepspeed.optimizer: must be absent, training.learning_rate, weight_decay, adam_beta1 and "
        "adam_beta2 set it; remove it",
        "deepspeed.scheduler: must be absent, training.lr_scheduler_type and warmup_steps set it; "
        "remove it",
    ]


def test_a_fixed_clipping_norm_must_be_the_specs() -> None:
    assert clipping_problems({}, 1.0) == clipping_problems({"gradient_clipping": 1}, 1.0) == []
    assert clipping_problems({"gradient_clipping": 0.5}, 1.0) == [
        "deepspeed.gradient_clipping: must equal max_grad_norm, got 0.5 != 1; "
        "set gradient_clipping: auto"
    ]


def test_batch_numbers_must_multiply() -> None:
    config = {
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": "auto",
    }
    assert batch_problems(config, 8, 8) == []
    assert batch_problems(config, 8, 4) == [
        "deepspeed.train_batch_size: must equal micro_batch × accumulation × ranks, "
        "got 64 != 32; set train_batch_size: 32 or auto"
    ]
    assert [problem.split(":")[0] for problem in batch_problems(config, 4, 4)] == [
        "deepspeed.train_micro_batch_size_per_gpu",
        "deepspeed.train_batch_size",
    ]


@pytest.mark.parametrize(
    ("config", "dtype", "problem"),
    [
        ({}, "bfloat16", None),
        ({"bf16": {"enabled": "auto"}, "fp16": {}}, "float32", None),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": False}}, "bfloat16", None),
        ({"fp16": {"enabled": True}}, "auto", None),
        ({"bf16": {"enabled": True}}, "float32",
         "bf16.enabled: must be auto or agree with model.dtype float32, got true; "
         "set enabled: auto"),
        ({"fp16": {"enabled": True}}, "bfloat16",
         "fp16.enabled: must be auto or agree with model.dtype bfloat16, got true; "
         "set enabled: auto"),
        ({"bf16": {"enabled": False}}, "bfloat16",
         "bf16.enabled: must be auto or agree with model.dtype bfloat16, got false; "
         "set enabled: auto"),
        ({"bf16": True}, "auto", "bf16: must be a mapping such as {enabled: auto}, got true"),
    ],
)  # fmt: skip
def test_a_fixed_precision_must_be_the_models(
    config: dict[str, object], dtype: str, problem: str | None
) -> None:
    assert precision_problems(config, dtype) == ([f"deepspeed.{problem}"] if problem else [])


def problems_of(config: dict[str, object]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        deepspeed_config(config)
    return caught.value.problems


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"zero_optimisation": {"stage": 2}}, "zero_optimisation: unknown section; did you mean "),
        ({"activation_checkpointing": {}}, "activation_checkpointing: must be absent, "),
        ({"wandb": {"enabled": True}}, "wandb: must be absent, the sweep logs to its journal"),
        (
            {"zero_optimization": {"stage": 3, "stage3_max_live_parameters": "auto"}},
            "zero_optimization.stage3_max_live_parameters: must be a value of its own, got auto; ",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            "zero_optimization.offload_optimizer: must be absent below stage 1, got stage 0; ",
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "zero_optimization.offload_param: must be absent below stage 3, got stage 2; ",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    config: dict[str, object], problem: str
) -> None:
    [found] = problems_of(config)
    assert found.startswith(f"deepspeed.{problem}")


def test_auto_is_filled_in_from_the_spec_and_the_models_width() -> None:
    config = preset(3) | {
        "zero_optimization": {
            "stage": 3, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
        },
    }  # fmt: skip
    training = TrainingSpec(
        max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=3, max_grad_norm=0.5
    )
    assert filled_config(config, training, 10, "bfloat16") == {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 3,
        "train_batch_size": 6,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "zero_optimization": {
            "stage": 3, "reduce_bucket_size": 100, "stage3_prefetch_bucket_size": 90,
            "stage3_param_persistence_threshold": 100,
        },
        "zero_allow_untested_optimizer": True,
    }  # fmt: skip


def test_the_optimizer_of_an_offloaded_state_is_deepspeeds_unless_the_config_says_otherwise() -> (
    None
):
    config = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    assert optimizer_on_cpu(config)
    assert not optimizer_on_cpu(config | {"zero_force_ds_cpu_optimizer": False})
    assert not optimizer_on_cpu(preset(2))


def test_an_optimizer_section_with_auto_has_one_problem() -> None:
    [problem] = problems_of({"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}})
    assert problem.startswith("deepspeed.optimizer: must be absent, ")


def test_an_old_name_of_offloading_is_refused_with_the_one_of_today() -> None:
    assert problems_of({"zero_optimization": {"stage": 2, "cpu_offload": True}}) == [
        "deepspeed.zero_optimization.cpu_offload: must be absent, its name is an old one; write "
        "offload_optimizer: {device: cpu}, or remove it"
    ]
