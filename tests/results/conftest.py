"""Sweep records made from events, as the driver makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    CheckpointEvent,
    Entry,
    Event,
    FinishEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord, replay

Rows = dict[int, dict[str, float]]

SPACE = {
    "training.learning_rate": {"type": "float", "low": 1e-6, "high": 1e-3, "log": True},
    "algorithm.beta": {"type": "float", "low": 0.01, "high": 0.5, "log": False},
    "model.lora_r": {"type": "choice", "choice": [4, 8, None]},
    "model.lora_target_modules": {"type": "choice", "choice": [["q_proj"], ["q_proj", "v_proj"]]},
}


class SweepBuilder:
    """Collects events; `record` replays them. Event n happens at 1,000 + n seconds."""

    def __init__(
        self,
        mode: Literal["max", "min"],
        metric: str,
        num_trials: int,
        bounds: tuple[Bound, ...],
        objectives: tuple[Objective, ...],
    ) -> None:
        self.events: list[Event] = [
            SweepEvent(
                name="试验",
                algorithm="dpo",
                objective=Objective(metric, mode),
                num_trials=num_trials,
                max_steps=40,
                created=1000.0,
                space=SPACE,
                bounds=bounds,
                objectives=objectives,
            )
        ]

    def trial(
        self,
        rows: Rows,
        state: TrialState | None = TrialState.COMPLETED,
        *,
        params: dict[str, Any] | None = None,
        checkpoints: bool = True,
        error: TrialError | None = None,
    ) -> SweepBuilder:
        """Add the next trial: its metrics by step, and the state it ends in (None: it runs)."""
        number = sum(isinstance(event, SuggestEvent) for event in self.events)
        name = f"{number:03d}"
        chosen = {
            "training.learning_rate": 2.5e-5 * (number + 1),
            "algorithm.beta": 0.1,
            "model.lora_r": 8,
            "model.lora_target_modules": ["q_proj", "v_proj"],
        }
        source: Literal["default", "sampler"] = "default" if number == 0 else "sampler"
        self.events.append(SuggestEvent(name, number, params or chosen, source))
        self.events.append(StartEvent(name, 1))
        step = 0
        for step, metrics in rows.items():
            self.events.append(ReportEvent(name, step, metrics))
            if checkpoints:
                path = f"trials/{name}/checkpoints/step-{step:06d}"
                self.events.append(CheckpointEvent(name, step, path, 1024))
        if state is not None:
            self.events.append(FinishEvent(name, state, step, 30.0, error))
        return self

    def entries(self) -> list[Entry]:
        return [Entry(seq, 1000.0 + seq, event) for seq, event in enumerate(self.events)]

    def record(self) -> SweepRecord:
        return replay(self.entries())


@pytest.fixture
def sweep() -> Callable[..., SweepBuilder]:
    def begin(
        mode: Literal["max", "min"] = "max",
        metric: str = "eval/reward",
        num_trials: int = 8,
        bounds: tuple[Bound, ...] = (),
        objectives: tuple[Objective, ...] = (),
    ) -> SweepBuilder:
        return SweepBuilder(mode, metric, num_trials, bounds, objectives)

    return begin


def row(reward: float, stderr: float = 0.05, kl: float = 0.01) -> dict[str, float]:
    return {
        "eval/reward": reward,
        "eval/reward_stderr": stderr,
        "eval/kl": kl,
        "train/loss": 1.0 - reward / 10,
    }


@pytest.fixture
def demo_sweep(sweep: Callable[..., SweepBuilder]) -> SweepBuilder:
    """Six of eight trials: the best is 001 at step 20, before it got worse; 005 still runs."""
    nan = float("nan")
    return (
        sweep()
        .trial({20: row(0.4), 40: row(0.5)})
        .trial({20: row(0.9), 40: row(0.8)})
        .trial({20: row(0.3)}, TrialState.PRUNED)
        .trial({20: row(1.7), 40: row(nan)}, TrialState.DIVERGED)
        .trial({}, TrialState.FAILED, error=TrialError("ValueError", "学习率太高\nline two"))
        .trial({20: row(0.6)}, None)
    )
