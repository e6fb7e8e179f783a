"""What goes into an algorithm and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from easyds_tune.data.tokenise import Encoder
from easyds_tune.rewards.reward import Reward

ModelContext = Callable[[], AbstractContextManager[nn.Module]]


@dataclass
class TrialInputs:
    """What a trial starts from. The algorithm may wrap and train `base`; it owns it until the end.

    encoder: made the tokens of all data; its tokenizer is the policy's.
    train: tokenised, as the algorithm takes it, no longer than its limit.
    held_out: records that are never trained on, the same for all trials; None where there are none.
    load_reference: a frozen copy of the start, for full fine-tuning; LoRA needs none.
    fresh_modules: names of the base's modules that no file holds; the adapter carries them.
    end_token_ids: what ends a reply.
    start: folder of a frozen adapter that the trial starts from; None starts from the base.
    reward: what PPO maximises; None for the others.
    """

    base: PreTrainedModel
    encoder: Encoder
    train: Dataset
    held_out: Dataset | None
    device: torch.device
    load_reference: Callable[[], PreTrainedModel]
    fresh_modules: tuple[str, ...] = ()
    end_token_ids: tuple[int, ...] = ()
    start: Path | None = None
    reward: Reward | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        tokenizer: PreTrainedTokenizerBase = self.encoder.tokenizer
        return tokenizer


@dataclass(frozen=True)
class Row:
    """One evaluation point of a running trial; valid until the generator goes on.

    step: optimizer updates so far; for PPO, rollouts.
    metrics: what the algorithm itself measures (`train/...`, and `eval/...` where it has its own).
    policy: gives the model as it is now, ready to generate.
    reference: gives the model the trial started from, ready for forward passes.
    save: writes weights and trainer state into an empty folder.
    save_unjudged: the same, and that this row is still owed: a trial that goes on from there
        yields it first.
    is_partial: no evaluation point; the trial was asked to stop, and this is its last row, only
        there to be saved with `save_unjudged`.
    notes: what a person should know of the trial, in words.
    """

    step: int
    metrics: dict[str, float]
    policy: ModelContext
    reference: ModelContext
    save: Callable[[Path], None]
    save_unjudged: Callable[[Path], None]
    is_partial: bool = False
    notes: tuple[str, ...] = ()
