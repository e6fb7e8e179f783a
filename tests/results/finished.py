"""A finished sweep with real checkpoints on disk, and its journal."""

from __future__ import annotations

import math
from pathlib import Path

from easyds_tune.journal.events import (
    CheckpointEvent,
    Event,
    FinalEvent,
    FinalistEvent,
    FinishEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.finals import find_best
from easyds_tune.trial.checkpoint import Checkpoint, write_checkpoint


class FinishedSweep:
    """Trials of 40 steps, one a reward; `record` holds what `folder`'s journal says."""

    def __init__(
        self,
        folder: Path,
        rewards: list[float],
        *,
        finals: bool,
        objectives: tuple[Objective, ...] = (),
    ) -> None:
        first = SweepEvent(
            folder.name, "dpo", Objective("eval/reward"), len(rewards), 40, 0.0,
            objectives=objectives,
        )  # fmt: skip
        self.folder = folder
        self.journal, entry = JournalWriter.create(folder / "journal.jsonl", first)
        self.record = SweepRecord.begin(entry)
        for number, reward in enumerate(rewards):
            name = f"{number:03d}"
            source = "sampler" if number else "default"
            self.append(SuggestEvent(name, number, {"algorithm.beta": reward}, source))  # type: ignore[arg-type]
            self.append(StartEvent(name, 1))
            self.report(name, 40, reward)
            self.append(FinishEvent(name, TrialState.COMPLETED, 40, 1.0))
        for number, reward in enumerate(rewards if finals else []):
            values = [reward + 0.01 * math.sin(n) for n in range(32)]
            path = f"trials/{number:03d}/checkpoints/step-000040"
            self.append(FinalistEvent(f"{number:03d}", 40, path, {"eval/reward": values}))
        best = find_best(self.record)
        assert best is not None
        self.append(FinalEvent(best.trial.id, best.step, 0))

    def append(self, event: Event) -> None:
        self.record.apply(self.journal.append(event))

    @staticmethod
    def write(folder: Path, trial: str, step: int, reward: float) -> Checkpoint:
        def save(path: Path) -> None:
            (path / "trainer").mkdir()
            (path / "trainer" / "state.pt").write_bytes(b"state")
            (path / "adapter_model.safetensors").write_bytes(f"{reward}".encode())

        return write_checkpoint(folder / "trials" / trial / "checkpoints", trial, step, save)

    def report(self, trial: str, step: int, reward: float) -> None:
        metrics = {"eval/reward": reward, "eval/reward_stderr": 0.05, "eval/kl": reward / 10}
        written = self.write(self.folder, trial, step, reward)
        where = str(written.path.relative_to(self.folder))
        self.append(ReportEvent(trial, step, metrics))
        self.append(CheckpointEvent(trial, step, where, written.bytes, written.digest))
