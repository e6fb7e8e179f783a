"""The judge: frozen prompts, how replies are drawn, and what scores them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easyds_tune.spec.base import LARGEST, LARGEST_SEED, FileName, Spec
from easyds_tune.spec.data import DataSource


class RewardModelRewardSpec(Spec):
    """Score a reply with a trained reward model (a sequence classifier with one output)."""

    type: Literal["reward_model"] = "reward_model"
    """Selects this reward."""
    model_name_or_path: FileName
    """Folder or hub name of the reward model; an adapter folder of `export` works too."""
    max_length: int = Field(1024, ge=8, le=LARGEST)
    """Tokens of prompt and reply the reward model reads; longer texts lose their beginning."""
    trust_remote_code: bool = False
    """Run Python code that the reward model, or the base under its adapter, brings along."""


class JudgeSpec(Spec):
    """One evaluation for all algorithms: same prompts, same sampling seeds, same score."""

    prompts: DataSource
    """Held-out prompts; those that also occur in the training data are removed and counted."""
    num_prompts: int = Field(64, ge=2, le=LARGEST)
    """How many prompts are used, the first ones of the file."""
    reward: RewardModelRewardSpec
    """What scores a reply; higher is better."""
    max_new_tokens: int = Field(128, ge=1, le=LARGEST)
    """Longest reply, in tokens."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature of replies; 0 is greedy. KL is always measured at temperature 1."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: keep the likeliest tokens up to this total probability; 1 keeps all."""
    batch_size: int = Field(32, ge=1, le=LARGEST)
    """Prompts generated and scored at a time; changes memory and speed only."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Seed of the sampling, shared by all trials and steps."""
