"""What is trained: one class per algorithm, told apart by `type`. Names are TRL's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from easyds_tune.spec.base import LARGEST, Spec

DPOLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip


class SFTSpec(Spec):
    """Supervised fine-tuning: cross-entropy on the assistant's turns (TRL's SFTTrainer)."""

    type: Literal["sft"]
    """Selects this algorithm."""
    max_length: int = Field(1024, ge=8, le=LARGEST)
    """Tokens kept of a conversation; the rest is cut from its end."""
    loss_type: Literal["nll", "dft"] = "nll"
    """`nll` is cross-entropy; `dft` weighs each token by its probability (arXiv 2508.05629)."""


class RewardModelSpec(Spec):
    """A scalar head trained on pairs with the Bradley-Terry loss (TRL's RewardTrainer)."""

    type: Literal["rm"]
    """Selects this algorithm."""
    max_length: int = Field(1024, ge=8, le=LARGEST)
    """Pairs with a text longer than this many tokens are left out, and counted."""
    center_rewards_coefficient: float | None = Field(None, ge=0)
    """Pulls the mean reward to zero (arXiv 2312.09244); 0.01 is usual, null is off."""


class DPOSpec(Spec):
    """Direct preference optimisation (TRL's DPOTrainer); the reference is the trial's start."""

    type: Literal["dpo"]
    """Selects this algorithm."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference; smaller lets the policy move further."""
    loss_type: DPOLoss = "sigmoid"
    """The preference loss; `sigmoid` is DPO as in the paper (arXiv 2305.18290)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the pairs assumed to be labelled the wrong way round (cDPO, robust, exo_pair)."""
    max_length: int = Field(1024, ge=8, le=LARGEST)
    """Tokens kept of prompt and reply together; the rest is cut from the reply's end."""
    use_weighting: bool = False
    """Weigh pairs by how likely the policy is to write them (WPO, arXiv 2406.11827)."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """Discount of the longer reply's surplus tokens (LD-DPO, arXiv 2409.06411); null is off."""


AlgorithmSpec = Annotated[SFTSpec | RewardModelSpec | DPOSpec, Field(discriminator="type")]
