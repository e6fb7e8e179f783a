"""Sweeps whose truth is known: what the search measured of checkpoints, and what the finals did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    CheckpointEvent,
    Entry,
    Event,
    FinalistEvent,
    FinishEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord, replay


@dataclass(frozen=True)
class Truth:
    """What a checkpoint is worth, and how far it moved, in nats per token."""

    reward: float
    kl: float


def measure(
    rng: np.random.Generator, prompts: np.ndarray, truth: Truth, spread: float, skewed: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """(values, weights) of a checkpoint: rewards around its own, and KL of replies of any length.

    prompts: how easy each prompt is, the same for all checkpoints; mean 0.
    """
    count = len(prompts)
    own = rng.exponential(spread, count) - spread if skewed else rng.normal(0, spread, count)
    rewards = truth.reward + prompts + own
    tokens = rng.integers(8, 48, count).astype(float)
    nats = tokens * truth.kl * rng.gamma(2.0, 0.5, count)
    return (
        {"eval/reward": rewards.tolist(), "eval/kl": nats.tolist()},
        {"eval/kl": tokens.tolist()},
    )


def summary(values: dict[str, list[float]], weights: dict[str, list[float]]) -> dict[str, float]:
    """The metrics that a search reports of such a measurement."""
    rewards, nats = np.array(values["eval/reward"]), np.array(values["eval/kl"])
    tokens, count = np.array(weights["eval/kl"]), len(values["eval/reward"])
    kl = nats.sum() / tokens.sum()
    residual = np.square(nats - kl * tokens).sum() * count / (count - 1)
    return {
        "eval/reward": float(rewards.mean()),
        "eval/reward_stderr": float(rewards.std(ddof=1) / count**0.5),
        "eval/kl": float(kl),
        "eval/kl_stderr": float(residual**0.5 / tokens.sum()),
    }


class JudgedSweep:
    """Trials of one checkpoint or more; `record` replays what was said of them."""

    def __init__(self, *bounds: Bound, mode: Any = "max", metric: str = "eval/reward") -> None:
        begin = SweepEvent(
            "judged", "ppo", Objective(metric, mode), 8, 40, 1000.0, bounds=tuple(bounds)
        )
        self._entries = [Entry(0, 1000.0, begin)]
        self._trials = 0

    def add(self, *events: Event) -> None:
        for event in events:
            seq = len(self._entries)
            self._entries.append(Entry(seq, 1000.0 + seq, event))

    def trial(
        self,
        rows: dict[int, dict[str, float]],
        state: TrialState = TrialState.COMPLETED,
        *,
        params: dict[str, Any] | None = None,
        source: Any = None,
        seed: int | None = None,
    ) -> str:
        """Add the next trial with its reports by step; returns its id."""
        number, self._trials = self._trials, self._trials + 1
        name = f"{number:03d}"
        source = source or ("default" if number == 0 else "sampler")
        chosen = params or {"algorithm.beta": 0.1 + number}
        self.add(SuggestEvent(name, number, chosen, source, seed), StartEvent(name, 1))
        for step, metrics in rows.items():
            self.add(ReportEvent(name, step, metrics))
            self.add(CheckpointEvent(name, step, checkpoint(name, step), 1024))
        self.add(FinishEvent(name, state, max(rows, default=0), 30.0))
        return name

    def judged(
        self,
        trial: str,
        step: int,
        values: dict[str, list[float]],
        weights: dict[str, list[float]] | None = None,
    ) -> None:
        self.add(FinalistEvent(trial, step, checkpoint(trial, step), values, weights or {}))

    @property
    def record(self) -> SweepRecord:
        return replay(self._entries)


def checkpoint(trial: str, step: int) -> str:
    return f"trials/{trial}/checkpoints/step-{step:06d}"
