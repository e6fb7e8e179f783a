"""Arguments for TRL are tried out before the start: a missing package or GPU, a wrong value."""

from __future__ import annotations

from typing import Any

import pytest

from easyds_tune.models.load import load_tokenizer
from easyds_tune.sweep.check_arguments import ARGUMENTS, argument_problems
from tests.integration.starting import TUTOR, start_spec


def problems(kind: str, arguments: dict[str, Any], **changes: Any) -> list[str]:
    spec = start_spec(kind, training={"training_arguments": arguments}, **changes)
    head = "reward" if kind == "rm" else "causal"
    return argument_problems(spec, spec.model, head, load_tokenizer(str(TUTOR)))


@pytest.mark.parametrize("kind", ["sft", "rm", "dpo"])
def test_an_optimizer_whose_package_is_missing_is_refused(kind: str) -> None:
    [problem] = problems(kind, {"adam_epsilon": 1e-7, "optim": "paged_adamw_8bit"})
    assert problem.startswith(f"{ARGUMENTS}.optim: must be what its library takes, got ")
    assert "bitsandbytes" in problem


@pytest.mark.parametrize("name", ["tf32", "use_liger_kernel", "activation_offloading"])
def test_what_needs_a_gpu_is_refused_where_none_is_used(name: str) -> None:
    assert f"{ARGUMENTS}.{name}: must be off where no GPU is used, got true; remove it" in problems(
        "sft", {name: True}
    )
    assert problems("sft", {name: False}) == []


@pytest.mark.parametrize(
    ("arguments", "name", "why"),
    [
        ({"optim": "adamw_torhc"}, "optim", "is not a valid OptimizerNames"),
        ({"optim_args": "betas"}, "optim_args", "not enough values to unpack"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor", "num_workers > 0"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of", "by zero"),
        ({"neftune_noise_alpha": "5"}, "neftune_noise_alpha", "unsupported operand"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef", "not a Mixture-of-Experts"),
    ],
)
def test_the_argument_that_a_library_refuses_is_named(
    arguments: dict[str, Any], name: str, why: str
) -> None:
    [problem] = problems("sft", arguments)
    assert problem.startswith(f"{ARGUMENTS}.{name}: ")
    assert why in problem


@pytest.mark.parametrize("kind", ["sft", "rm", "dpo"])
@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adafactor", "sgd"])
def test_what_the_libraries_take_is_taken(kind: str, optimizer: str) -> None:
    assert problems(kind, {"optim": optimizer, "dataloader_drop_last": True}) == []


def test_searched_arguments_are_tried_too() -> None:
    spec = start_spec("sft", search_space={ARGUMENTS: [{}, {"optim": "lomo"}]})
    [problem] = argument_problems(spec, spec.model, "causal", load_tokenizer(str(TUTOR)))
    assert "lomo_optim" in problem


def test_an_offloaded_optimizer_is_adam_or_refused() -> None:
    config = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    [problem] = problems("sft", {"optim": "sgd"}, deepspeed=config)
    assert "must be adamw_torch where DeepSpeed offloads the optimizer" in problem
    unforced = config | {"zero_force_ds_cpu_optimizer": False}
    assert problems("sft", {"optim": "sgd"}, deepspeed=unforced) == []


def test_settings_of_gradient_checkpointing_that_torch_does_not_know_are_refused() -> None:
    def found(settings: dict[str, Any]) -> list[str]:
        arguments = {"gradient_checkpointing_kwargs": settings}
        training = {"training_arguments": arguments, "gradient_checkpointing": True}
        spec = start_spec("sft", training=training)
        return argument_problems(spec, spec.model, "causal", load_tokenizer(str(TUTOR)))

    [problem] = found({"foo": 1})
    assert problem.startswith(f"{ARGUMENTS}.gradient_checkpointing_kwargs: ")
    assert "Unexpected keyword arguments: foo" in problem
    assert found({"use_reentrant": False}) == []
