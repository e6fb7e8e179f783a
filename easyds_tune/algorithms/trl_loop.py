"""Run one of TRL's trainers under DeepSpeed as a generator of rows. Shared by SFT, RM and DPO."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl.models import unwrap_model_for_generation

from easyds_tune.algorithms.handover import handed_over
from easyds_tune.algorithms.row import ModelContext, Row, TrialInputs
from easyds_tune.models.deepspeed import end_of_engine, release, tell_gradient_norm
from easyds_tune.models.generate import without_adapter
from easyds_tune.models.load import ModelKind
from easyds_tune.models.lora import give_back, lora_config
from easyds_tune.spec.deepspeed import deepspeed_config, zero_stage
from easyds_tune.spec.sweep import TrialSpec

Evaluate = Callable[[nn.Module], dict[str, float]]


class TokenisedData:
    """Mixin before a TRL trainer: its data is tokenised already, once for all trials."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def rows(
    trainer_class: type[Trainer],
    config_class: type[TrainingArguments],
    spec: TrialSpec,
    inputs: TrialInputs,
    *,
    config: dict[str, Any],
    trainer: dict[str, Any] | None = None,
    reference: PreTrainedModel | None = None,
    evaluate: Evaluate | None = None,
    resume_from: Path | None = None,
) -> Iterator[Row]:
    """Build the trainer, train, and yield a Row at every evaluation step.

    config: the algorithm's own arguments of `config_class`.
    trainer: the algorithm's own arguments of `trainer_class`.
    reference: the start of the trial for full fine-tuning; an adapter is switched off instead.
    evaluate: the algorithm's own metrics on the gathered model, beside the training metrics.
    """
    scratch = Path(tempfile.mkdtemp(prefix="easyds-trainer-"))
    with end_of_engine(scratch):
        arguments = config_class(**training_arguments(spec, inputs, scratch), **config)
        built = trainer_class(
            model=inputs.base,
            args=arguments,
            train_dataset=inputs.train,
            processing_class=inputs.tokenizer,
            peft_config=adapter(spec, inputs),
            **(trainer or {}),
        )
        try:
            yield from handed_over(
                lambda give: _train(built, spec, inputs, give, evaluate, reference, resume_from)
            )
        finally:
            release(built.deepspeed)
            give_back(built.model)


def training_arguments(spec: TrialSpec, inputs: TrialInputs, folder: Path) -> dict[str, Any]:
    """The arguments that all of TRL's config classes share, from a trial's spec."""
    training = spec.training
    on_cpu = inputs.device.type == "cpu"
    return {
        "output_dir": str(folder),
        "max_steps": max(1, spec.budget.max_steps),
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "max_grad_norm": training.max_grad_norm,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": training.gradient_checkpointing,
        "deepspeed": deepspeed_config(spec.deepspeed),
        "seed": spec.seed,
        "use_cpu": on_cpu,
        "bf16": inputs.base.dtype == torch.bfloat16,
        "fp16": inputs.base.dtype == torch.float16,
        "dataloader_pin_memory": not on_cpu,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **training.training_arguments,
    }


def adapter(spec: TrialSpec, inputs: TrialInputs) -> LoraConfig | None:
    """The adapter to train; None for full fine-tuning."""
    if spec.model.lora_r is None:
        return None
    kind: ModelKind = "reward" if spec.algorithm.type == "rm" else "causal"
    return lora_config(spec.model, kind, inputs.fresh_modules)


def silence_base_dropout(base: nn.Module) -> None:
    """Switch off the base's own dropout for preference losses, as TRL does; LoRA's stays."""
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


class _NothingToTrain(Exception):
    """A budget of zero steps ends after the first evaluation, with the engine built."""


class _Evaluations(TrainerCallback):
    """Log exactly at the evaluation steps, and call back with what was logged."""

    def __init__(
        self,
        spec: TrialSpec,
        trainer: Trainer,
        reached: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.budget = spec.budget
        self.trainer = trainer
        self.reached = reached

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tell_gradient_norm(self.trainer.deepspeed)
        if state.log_history:  # a resumed trial; TRL counts tokens anew, the rest is restored
            self.trainer._total_train_tokens = state.log_history[-1]["num_tokens"]
        if self.budget.max_steps == 0:
            self.reached(0, {})
            raise _NothingToTrain

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        control.should_log = step % self.budget.eval_steps == 0 or step == self.budget.max_steps

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        if "loss" in logs:  # the summary at the end of training has none
            self.reached(state.global_step, logs)


def _train(
    trainer: Trainer,
    spec: TrialSpec,
    inputs: TrialInputs,
    give: Callable[[Row], None],
    evaluate: Evaluate | None,
    reference: nn.Module | None,
    resume_from: Path | None,
) -> None:
    trained_until = time.perf_counter()
    trained_seconds = 0.0

    def reached(step: int, logs: dict[str, float]) -> None:
        nonlocal trained_until, trained_seconds
        trained_seconds += time.perf_counter() - trained_until
        metrics = {f"train/{name}": float(value) for name, value in logs.items()}
        metrics["time/train_seconds"] = trained_seconds
        policy = _policy_context(trainer, spec)
        if evaluate is not None:
            with policy() as model:
                metrics |= evaluate(model)
        give(
            Row(
                step=step,
                metrics=metrics,
                policy=policy,
                reference=_reference_context(policy, reference),
                save=lambda folder: save(trainer, folder),
            )
        )
        trained_until = time.perf_counter()

    trainer.remove_callback(PrinterCallback)  # the journal and the display show what is logged
    trainer.add_callback(_Evaluations(spec, trainer, reached))
    state = resume_from / "trainer" if resume_from else None
    with suppress(_NothingToTrain):
        trainer.train(resume_from_checkpoint=str(state) if state else None)


def _policy_context(trainer: Trainer, spec: TrialSpec) -> ModelContext:
    """The model for generation: as it is, or with ZeRO-3's shards gathered and hooks removed.

    Entered once more inside, it gives the same model: shards cannot be gathered twice.
    """
    entered: list[nn.Module] = []

    @contextmanager
    def gathered() -> Iterator[nn.Module]:
        if entered:
            yield entered[0]
            return
        sharded = zero_stage(deepspeed_config(spec.deepspeed)) == 3
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        context: AbstractContextManager[Any] = (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            )
            if sharded
            else nullcontext(model)
        )
        with context as ready:
            ready.eval()
            entered.append(ready)
            try:
                yield ready
            finally:
                entered.clear()
                ready.train(was_training)

    return gathered


def _reference_context(policy: ModelContext, reference: nn.Module | None) -> ModelContext:
    """The start of the trial: a frozen model, or the policy with its adapter switched off."""

    @contextmanager
    def context() -> Iterator[nn.Module]:
        if reference is not None:
            yield reference
        else:
            with policy() as model, without_adapter(model):
                yield model

    return context


def save(trainer: Trainer, folder: Path) -> None:
    """Write the weights a trial changed, and under trainer/ all it needs to go on."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = None
    if trainer.deepspeed is not None and trainer.deepspeed.zero_optimization_stage() == 3:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    options: dict[str, Any] = {"state_dict": state} if state is not None else {}
    if adapter_is_on(model):
        # "auto" would ask the hub whether the vocabulary grew.
        options["save_embedding_layers"] = False
    model.save_pretrained(folder, **options)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    trainer_folder = folder / "trainer"
    trainer_folder.mkdir()
    trainer._save_optimizer_and_scheduler(str(trainer_folder))
    trainer._save_rng_state(str(trainer_folder))
    trainer.state.save_to_json(str(trainer_folder / "trainer_state.json"))


def adapter_is_on(model: nn.Module) -> bool:
    """Whether a model is PEFT's, and so saves its adapter alone."""
    return hasattr(model, "peft_config")
