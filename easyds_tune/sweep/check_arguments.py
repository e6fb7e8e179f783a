"""Arguments that are passed on to TRL, tried out on its trainers before anything starts.

The libraries' own checks run here, on modules without weights: a package that is missing, a value
of another kind, a combination that a trainer refuses. Nothing is trained and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from datasets import Dataset
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.import_utils import is_liger_kernel_available, is_torch_tf32_available

from easyds_tune.errors import Problem
from easyds_tune.models.deepspeed import end_of_engine
from easyds_tune.models.load import ModelKind, load_skeleton
from easyds_tune.models.lora import lora_config
from easyds_tune.spec.deepspeed import deepspeed_config, optimizer_on_cpu
from easyds_tune.spec.messages import shown
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.searched import values_of
from easyds_tune.spec.sweep import SweepSpec

ARGUMENTS = "training.training_arguments"
TRAINERS = {
    "sft": ("SFTConfig", "SFTTrainer"),
    "rm": ("RewardConfig", "RewardTrainer"),
    "dpo": ("DPOConfig", "DPOTrainer"),
}
"""TRL's names of an algorithm's settings and trainer."""
ROWS = {
    "sft": ("input_ids", "labels"),
    "rm": ("chosen_ids", "rejected_ids"),
    "dpo": ("prompt_ids", "chosen_ids", "rejected_ids"),
}
"""The columns that each trainer reads."""
ON_CPU_ADAM = {"adamw_torch", "adamw_torch_fused"}
"""Optimizers that DeepSpeed has on the CPU as well."""
NEED_A_GPU = ("tf32", "activation_offloading", "use_liger_kernel")


def argument_problems(
    spec: SweepSpec, base: ModelSpec, kind: ModelKind, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Arguments, of the spec or its search, that no trial could train with."""
    tried = values_of(spec, ARGUMENTS, spec.training.training_arguments)
    problems = [problem for arguments in tried for problem in _device_problems(spec, arguments)]
    if not problems:
        tries = [arguments for arguments in tried if arguments]
        problems = [
            problem
            for arguments in tries
            for problem in _library_problems(spec, arguments, base, kind, tokenizer)
        ]
    return list(dict.fromkeys(problems))


def _device_problems(spec: SweepSpec, arguments: dict[str, Any]) -> list[str]:
    """Arguments whose hardware or package is not there."""
    on_gpu = bool(gpus_of(spec.resources))
    problems = [
        Problem(f"{ARGUMENTS}.{name}", "must be off where no GPU is used", "true", "remove it")
        for name in NEED_A_GPU
        if arguments.get(name) is True and not on_gpu
    ]
    if arguments.get("use_liger_kernel") is True and not is_liger_kernel_available():
        problems.append(
            Problem(
                f"{ARGUMENTS}.use_liger_kernel",
                "must be off where its package is missing",
                "true",
                "pip install liger-kernel, or remove it",
            )
        )
    if arguments.get("tf32") is True and on_gpu and not is_torch_tf32_available():
        problems.append(
            Problem(f"{ARGUMENTS}.tf32", "must be off before Ampere GPUs", "true", "remove it")
        )
    optimizer = arguments.get("optim", "adamw_torch")
    if optimizer_on_cpu(deepspeed_config(spec.deepspeed)) and optimizer not in ON_CPU_ADAM:
        problems.append(
            Problem(
                f"{ARGUMENTS}.optim",
                "must be adamw_torch where DeepSpeed offloads the optimizer, which it replaces by "
                "its own Adam",
                shown(optimizer),
                "remove it, or set deepspeed.zero_force_ds_cpu_optimizer: false",
            )
        )
    return [str(problem) for problem in problems]


def _library_problems(
    spec: SweepSpec,
    arguments: dict[str, Any],
    base: ModelSpec,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    """What Transformers, TRL or torch refuse, with the argument that they refuse."""
    algorithm = spec.algorithm.type
    build = _adamw if algorithm == "ppo" else _trainer
    whole = _refusal(build, spec, arguments, base, kind, tokenizer)
    if whole is None:
        return []
    problems = []
    for name, value in arguments.items():
        why = _refusal(build, spec, {name: value}, base, kind, tokenizer)
        if why is not None:
            problems.append(_told(f"{ARGUMENTS}.{name}", shown(value), why))
    # Some only fail together.
    return problems or [_told(ARGUMENTS, shown(arguments), whole)]


def _told(path: str, got: str, why: str) -> str:
    remedy = "install it, or remove it" if "install" in why else "correct it"
    return str(Problem(path, "must be what its library takes", f"{got}: {why}", remedy))


def _refusal(build: Callable[..., None], *args: Any) -> str | None:
    """What a library says against some arguments, in one line; None where it takes them."""
    try:
        with torch.random.fork_rng(devices=[]), end_of_engine():
            build(*args)
    except Exception as error:  # whatever the libraries make of values of any kind
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _adamw(spec: SweepSpec, arguments: dict[str, Any], *_: Any) -> None:
    """PPO's own optimizer."""
    weight = torch.nn.Parameter(torch.zeros(1))
    torch.optim.AdamW([weight], lr=1e-3, eps=arguments.get("adam_epsilon", 1e-8))


def _trainer(
    spec: SweepSpec,
    arguments: dict[str, Any],
    base: ModelSpec,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Build TRL's trainer on modules without weights, its optimizer, and one batch."""
    import trl

    config_name, trainer_name = TRAINERS[spec.algorithm.type]
    training = spec.training
    fixed = {"disable_dropout": False} if spec.algorithm.type != "sft" else {}
    config = getattr(trl, config_name)(
        output_dir="unused",
        max_steps=1,
        per_device_train_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        gradient_checkpointing=training.gradient_checkpointing,
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to=[],
        **fixed,
        # Their hardware is checked apart: here everything is on the CPU.
        **{name: value for name, value in arguments.items() if name not in NEED_A_GPU},
    )
    trainer_class = _weightless(getattr(trl, trainer_name))
    model = load_skeleton(base, kind)
    lora = None if spec.model.lora_r is None else lora_config(spec.model, kind)
    has_reference = spec.algorithm.type == "dpo" and lora is None
    reference = {"ref_model": load_skeleton(base, kind)} if has_reference else {}
    eos = tokenizer.eos_token_id
    count = training.per_device_train_batch_size
    rows = Dataset.from_dict({name: [[eos, eos]] * count for name in ROWS[spec.algorithm.type]})
    trainer = trainer_class(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora,
        **reference,
    )
    trainer.create_optimizer()
    loader = trainer.get_train_dataloader()
    loader.collate_fn([rows[index] for index in range(count)])
    if training.gradient_checkpointing and config.gradient_checkpointing_kwargs:
        # They are passed on to torch, which names those that it does not know.
        checkpoint(torch.nn.Identity(), torch.zeros(1), **config.gradient_checkpointing_kwargs)
    if config.neftune_noise_alpha is not None:
        config.neftune_noise_alpha / 1.0  # as its hook on the embedding does


def _weightless(trainer_class: Any) -> Any:
    """The trainer, with its data as it is and its model left on the meta device."""
    trl_loop = import_module("easyds_tune.algorithms.trl_loop")

    class Weightless(trl_loop.TokenisedData, trainer_class):  # type: ignore[misc, name-defined]
        def _move_model_to_device(self, model: PreTrainedModel, device: torch.device) -> None:
            pass

    return Weightless
