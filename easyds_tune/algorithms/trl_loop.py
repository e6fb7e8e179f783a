"""Run one of TRL's trainers under DeepSpeed as a generator of rows. Shared by SFT, RM and DPO."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
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

from easyds_tune import progress
from easyds_tune.algorithms.handover import handed_over
from easyds_tune.algorithms.row import ModelContext, Row, TrialInputs
from easyds_tune.algorithms.stopping import StopAsked, Stopped, never, stoppable
from easyds_tune.algorithms.trl_state import Kept, restore, save
from easyds_tune.drafts import draft_folder
from easyds_tune.models.deepspeed import (
    end_of_engine,
    engine_config,
    release,
    tell_gradient_norm,
)
from easyds_tune.models.generate import without_adapter
from easyds_tune.models.load import ModelKind
from easyds_tune.models.lora import give_back, lora_config
from easyds_tune.spec.deepspeed import deepspeed_config, zero_stage
from easyds_tune.spec.sweep import TrialSpec

Evaluate = Callable[[nn.Module], dict[str, float]]


class TokenisedData:
    """Mixin before a TRL trainer: its data is tokenised already, once for all trials.

    Its schedules work on any optimizer of DeepSpeed's.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Some schedules read the peak rate in `defaults`, which ZeRO's optimizers do not have."""
        engine_optimizer = getattr(self.optimizer, "optimizer", None)  # type: ignore[attr-defined]
        inner = getattr(engine_optimizer, "optimizer", None)
        if inner is not None and not hasattr(engine_optimizer, "defaults"):
            engine_optimizer.defaults = inner.defaults
        return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]


class PairsCountAlike(TokenisedData):
    """Mixin before a TRL trainer of pairs: how an update is cut into forward passes is no matter.

    Transformers takes the mean of the passes' means, where at the end of the data one may hold
    fewer pairs than the others.
    """

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        batches, items = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        self._rows_of_update = sum(len(batch["input_ids"]) for batch in batches)
        return batches, items

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        passes: int = self.current_gradient_accumulation_steps  # type: ignore[attr-defined]
        share = len(inputs["input_ids"]) * passes / self._rows_of_update
        return loss if share == 1 else loss * share


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
    stop_asked: StopAsked = never,
) -> Iterator[Row]:
    """Build the trainer, train, and yield a Row at every evaluation step.

    config: the algorithm's own arguments of `config_class`.
    trainer: the algorithm's own arguments of `trainer_class`.
    reference: the start of the trial for full fine-tuning; an adapter is switched off instead.
    evaluate: the algorithm's own metrics on the gathered model, beside the training metrics.
    """
    scratch = draft_folder(Path(tempfile.gettempdir()) / "easyds-trainer")
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
                lambda give: _train(built, spec, give, evaluate, reference, resume_from, stop_asked)
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
        "max_length": None,  # the records fit already; no collator cuts them
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
        "deepspeed": engine_config(spec.deepspeed, training, inputs.base),
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


class _Ended(Exception):
    """The trial is over before its trainer thinks so: nothing to train, or asked to stop."""


class _Evaluations(TrainerCallback):
    """Log exactly at the evaluation steps, and hand over a row with what was logged.

    Asked to stop, it hands over a partial row after the step, or instead of an evaluation.
    """

    def __init__(
        self,
        trainer: Trainer,
        spec: TrialSpec,
        give: Callable[[Row], None],
        evaluate: Evaluate | None,
        reference: nn.Module | None,
        resume_from: Path | None,
        stop_asked: StopAsked,
    ) -> None:
        self.trainer = trainer
        self.budget = spec.budget
        self.give = give
        self.evaluate = evaluate
        self.policy = _policy_context(trainer, spec)
        self.reference = _reference_context(self.policy, reference)
        self.resume_from = resume_from
        self.stop_asked = stop_asked
        self.seconds = 0.0
        self.since = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tell_gradient_norm(self.trainer.deepspeed)
        owed = None
        if self.resume_from is not None:
            kept = restore(self.trainer, self.resume_from)
            self.seconds, owed = kept.seconds, kept.unjudged
        if owed is not None or self.budget.max_steps == 0:
            self.reached(state.global_step, owed or {})
        if state.global_step >= self.budget.max_steps:
            raise _Ended

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress.made()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress.made()
        step = state.global_step
        control.should_log = step % self.budget.eval_steps == 0 or step == self.budget.max_steps
        if not control.should_log and self.stop_asked():
            self.clock()
            self.end(step, Kept(self.seconds, since_row=dict(self.trainer._metrics["train"])))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        if "loss" in logs:  # the summary at the end of training has none
            metrics = {f"train/{name}": float(value) for name, value in logs.items()}
            self.reached(state.global_step, metrics)

    def reached(self, step: int, trained: dict[str, float]) -> None:
        """An evaluation step. trained: the training metrics since the last one."""
        self.clock()
        metrics = trained | {"time/train_seconds": self.seconds}
        owed = Kept(self.seconds, unjudged=trained)
        if self.evaluate is not None:
            try:
                with self.policy() as model, stoppable(model, self.stop_asked):
                    metrics |= self.evaluate(model)
            except Stopped:
                self.end(step, owed)
        self.give(self.row(step, metrics, owed))
        self.since = time.perf_counter()

    def end(self, step: int, kept: Kept) -> None:
        """Hand over a partial row and train no more."""
        self.give(replace(self.row(step, {}, kept), is_partial=True))
        raise _Ended

    def row(self, step: int, metrics: dict[str, float], owed: Kept) -> Row:
        return Row(
            step=step,
            metrics=metrics,
            policy=self.policy,
            reference=self.reference,
            save=lambda folder: save(self.trainer, folder, Kept(self.seconds)),
            save_unjudged=lambda folder: save(self.trainer, folder, owed),
        )

    def clock(self) -> None:
        """Count the time since the last row as training."""
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now


def _train(
    trainer: Trainer,
    spec: TrialSpec,
    give: Callable[[Row], None],
    evaluate: Evaluate | None,
    reference: nn.Module | None,
    resume_from: Path | None,
    stop_asked: StopAsked,
) -> None:
    state = resume_from / "trainer" if resume_from else None
    trainer.remove_callback(PrinterCallback)  # the journal and the display show what is logged
    trainer.add_callback(_Evaluations(trainer, spec, give, evaluate, reference, state, stop_asked))
    with suppress(_Ended):
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
