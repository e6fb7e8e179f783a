"""What every reward can do: give replies a number, higher is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from easyds_tune.data.records import Message


class Reward(Protocol):
    """Scores replies to prompts; the same input gives the same scores."""

    def score(self, prompts: Sequence[tuple[Message, ...]], replies: Sequence[str]) -> Tensor:
        """One score per reply: float32 of shape (replies,), on the CPU."""
        ...
