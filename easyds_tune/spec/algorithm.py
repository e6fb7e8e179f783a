"""What is trained: one class per algorithm, told apart by `type`. Names are TRL's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from easyds_tune.spec.base import LARGEST, FileName, Spec
from easyds_tune.spec.judge import RewardModelRewardSpec

DPOLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip

KLEstimator = Literal["k1", "k2", "k3"]

Truncation = Literal["drop", "keep_start", "keep_end"]
"""What becomes of a record longer than `max_length`, in training and held-out records alike."""


class SFTSpec(Spec):
    """Supervised fine-tuning: cross-entropy on the assistant's turns (TRL's SFTTrainer)."""

    type: Literal["sft"]
    """Selects this algorithm."""
    max_length: int = Field(1024, ge=8, le=LARGEST)
    """Longest conversation or text, in tokens, its end token included."""
    truncation: Truncation = "drop"
    """Records over `max_length`: `drop` leaves them out, and counts them. `keep_end` cuts the
    beginning of the conversation and never the last reply; a reply that leaves no room for a prompt
    is left out. `keep_start` cuts the end, and such a reply is trained without an end token: a
    model that sees mostly those does not learn to stop."""
    loss_type: Literal["nll", "dft"] = "nll"
    """`nll` is cross-entropy; `dft` weighs each token by its probability (arXiv 2508.05629)."""


class RewardModelSpec(Spec):
    """A scalar head trained on pairs with the Bradley-Terry loss (TRL's RewardTrainer)."""

    type: Literal["rm"]
    """Selects this algorithm."""
    max_length: int = Field(1024, ge=8, le=LARGEST)
    """Longest prompt and reply together, in tokens."""
    truncation: Literal["drop", "keep_end"] = "drop"
    """Pairs with a side over `max_length`: `drop` leaves them out, and counts them. `keep_end` cuts
    the beginning of the prompt, the same for both sides, and never a reply: a reward is read at
    the reply's end."""
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
    """Longest prompt and reply together, in tokens, the end token included."""
    truncation: Truncation = "drop"
    """Pairs with a side over `max_length`: `drop` leaves them out, and counts them. `keep_end` cuts
    the beginning of the prompt, the same for both sides, and never a reply. `keep_start` cuts the
    replies' ends: a cut reply has no end token, and a pair may be cut on one side alone."""
    use_weighting: bool = False
    """Weigh pairs by how likely the policy is to write them (WPO, arXiv 2406.11827)."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """Discount of the longer reply's surplus tokens (LD-DPO, arXiv 2409.06411); null is off."""


class PPOSpec(Spec):
    """Proximal policy optimisation against a reward, held near its start by a KL target (ours).

    A step is one rollout: replies are drawn and scored, then `num_ppo_epochs` passes are made over
    them in mini-batches of the effective batch, one optimizer update each.
    """

    type: Literal["ppo"]
    """Selects this algorithm."""
    reward: RewardModelRewardSpec
    """What training maximises; the judge's reward is its own choice, better another one."""
    ref_model_name_or_path: FileName | None = None
    """The model KL is measured from. It is always the policy's start; null says so too."""

    rollout_batch_size: int = Field(64, ge=1, le=LARGEST)
    """Replies drawn a step; a multiple of the effective batch and of `num_generations`."""
    num_generations: int = Field(1, ge=1, le=LARGEST)
    """Replies to each prompt; at least 2 for rloo and grpo, which compare them."""
    rollout_forward_batch_size: int = Field(64, ge=1, le=LARGEST)
    """Replies drawn at a time, and at most measured; changes memory and speed only."""
    response_length: int = Field(128, ge=1, le=LARGEST)
    """Longest reply, in tokens, the end token included."""
    max_prompt_length: int | None = Field(None, ge=1, le=LARGEST)
    """Prompts of more tokens are left out, and counted; null takes all, if the model has room."""
    temperature: float = Field(1.0, gt=0)
    """Of drawing replies, and so of the log-probabilities that the losses see."""
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Taken off the (normalised) score of a reply that was cut off before its end token."""
    normalize_rewards: bool = True
    """Shift and scale scores by the mean and spread of all scores of the trial so far, so that one
    KL coefficient suits rewards of any scale."""
    reward_clip: float | None = Field(None, gt=0)
    """Scores (normalised ones, if they are) are cut off at plus and minus this; null: not."""

    kl_controller: Literal["adaptive", "ziegler", "fixed"] = "adaptive"
    """`adaptive` moves the penalty's coefficient to where the KL will meet `kl_target`, looking
    ahead; `ziegler` by the error of the last step alone (arXiv 1909.08593); `fixed` never."""
    kl_target: float = Field(0.1, gt=0)
    """KL to the start that the controller aims at, in nats per token, measured on the rollouts."""
    kl_horizon: float | None = Field(None, ge=1)
    """Steps that `adaptive` looks ahead and takes to correct an error (null: a 15th of the
    budget, 2 to 20), or in which `ziegler` moves the coefficient by a fifth at most (null: a
    fiftieth of the budget, at least 1)."""
    kl_coef: float = Field(0.05, ge=0)
    """Coefficient of the KL penalty per token: the first one, or the only one of `fixed`."""
    kl_coef_limit: float = Field(100.0, ge=2)
    """`adaptive` keeps the coefficient within this factor of `kl_coef`."""
    kl_estimator: KLEstimator = "k1"
    """How the penalty estimates the KL at each drawn token; k1 is unbiased, k3 never negative."""

    advantage_estimator: Literal["gae", "rloo", "grpo"] = "gae"
    """`gae` learns a value head; `rloo` and `grpo` compare replies to one prompt instead."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token (gae)."""
    lam: float = Field(1.0, ge=0, le=1)
    """GAE's λ: 1 trusts the rewards alone, 0 the value head alone."""
    whiten_advantages: bool | None = None
    """Bring advantages to mean 0 and variance 1 over the tokens of a step; null does so for gae
    alone: rloo and grpo have compared replies to one prompt already."""

    num_ppo_epochs: int = Field(4, ge=1, le=LARGEST)
    """Passes over a step's replies."""
    cliprange: float = Field(0.2, gt=0)
    """The probability ratio stops counting beyond 1 ± this."""
    cliprange_value: float = Field(0.2, gt=0)
    """The value prediction stops counting beyond the old one ± this, in spreads of the returns."""
    value_learning_rate: float = Field(0.3, gt=0)
    """How far one update moves a value at most, in spreads of the returns: by so much through the
    states and by so much through the bias. The value head has its own optimizer and sends no
    gradient into the policy."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of an entropy bonus; 0 is usual where a KL penalty is."""
    max_approx_kl: float | None = Field(None, gt=0)
    """Ends a step's updates once they moved the policy this far, in nats per token; null: never."""

    lr_adjust_factor: float = Field(1.0, ge=1, le=1000)
    """Divide the learning rate by this after a step whose KL is well over its target, multiply
    where it is well under, after warm-up; 1 is off, 1.5 is usual."""
    lr_adjust_band: float = Field(2.0, gt=1)
    """Well over and well under: more than this times the target, less than the target over this."""
    lr_adjust_limit: float = Field(10.0, ge=1)
    """The learning rate stays within this factor of its schedule."""


AlgorithmSpec = Annotated[
    SFTSpec | RewardModelSpec | DPOSpec | PPOSpec, Field(discriminator="type")
]


MAX_KL_ERROR = 0.2
"""Where `ziegler` cuts its error off: by so much the coefficient moves in one horizon."""
LARGEST_KL_RATIO = 4.0
"""Where `adaptive` cuts off (KL ahead / target), either way."""
CORRECTION = 2.0
"""Parts in a horizon of its error that `adaptive` corrects each step; more overshoots less, until
noise and lag make it swing (tried on simulated policies: 1, 1.5 and 2)."""
FAR_KL_RATIO = 3.0
"""A KL of more than so many times its target is a warning."""


def kl_horizon(ppo: PPOSpec, max_steps: int) -> float:
    """The horizon of the KL controller in a trial of `max_steps`, in steps."""
    if ppo.kl_horizon is not None:
        return ppo.kl_horizon
    if ppo.kl_controller == "ziegler":
        return max(1.0, max_steps / 50)
    return min(max(2.0, max_steps / 15), 20.0)


def length_field(algorithm: AlgorithmSpec) -> str:
    """The field that says which training records are too long."""
    return "max_prompt_length" if algorithm.type == "ppo" else "max_length"


def length_limit(algorithm: AlgorithmSpec) -> int | None:
    """The longest training record, in tokens; None where all are taken."""
    limit: int | None = getattr(algorithm, length_field(algorithm))
    return limit
