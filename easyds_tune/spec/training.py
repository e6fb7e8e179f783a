"""How a trial trains: steps, batches, optimiser, schedule. Names are Transformers'."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from easyds_tune.spec.base import LARGEST, Spec

Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay",
]  # fmt: skip


class TrainingSpec(Spec):
    """Optimiser and budget. A step is one optimiser update; PPO's is a rollout, with several."""

    max_steps: int | None = Field(None, ge=0, le=LARGEST)
    """Budget in steps of the default configuration; give this or `num_train_epochs`."""
    num_train_epochs: float | None = Field(None, gt=0, le=1e6)
    """Budget in passes over the training data; give this or `max_steps`."""
    eval_steps: int | None = Field(None, ge=1, le=LARGEST)
    """Steps between evaluations, each with a checkpoint; null is a fifth of the budget."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    lr_scheduler_type: Schedule = "cosine"
    """Shape of the learning rate over the full budget, never over a rung."""
    warmup_steps: float = Field(0, ge=0, le=LARGEST)
    """Linear warm-up: a number of steps, or below 1 a share of the budget."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 switches clipping off."""
    per_device_train_batch_size: int = Field(8, ge=1, le=LARGEST)
    """Examples a forward pass takes (pairs for preferences)."""
    gradient_accumulation_steps: int = Field(1, ge=1, le=LARGEST)
    """Forward passes per update; the effective batch is the product of both."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    training_arguments: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of TRL's config class, passed on as it is; PPO takes a few of them."""

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingSpec:
        if (self.max_steps is None) == (self.num_train_epochs is None):
            raise ValueError(
                "must have max_steps or num_train_epochs, and not both, got "
                f"max_steps={self.max_steps} and num_train_epochs={self.num_train_epochs}"
            )
        return self

    @property
    def effective_batch(self) -> int:
        """Examples per optimiser update on one rank."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps
