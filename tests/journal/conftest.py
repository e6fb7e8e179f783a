"""A small sweep's events, and a journal that holds them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyds_tune.journal.events import (
    CheckpointEvent,
    DecideEvent,
    Event,
    FinalEvent,
    FinishEvent,
    NoteEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialError,
    TrialState,
)
from easyds_tune.journal.writer import JournalWriter


@pytest.fixture
def sweep_event() -> SweepEvent:
    return SweepEvent(
        name="小试",
        algorithm="dpo",
        objective=Objective("eval/reward", "max"),
        num_trials=2,
        max_steps=40,
        created=1_763_700_000.0,
        space={"training.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3}},
    )


@pytest.fixture
def later_events() -> list[Event]:
    return [
        SuggestEvent("000", 0, {"training.learning_rate": 1e-4}, "default"),
        StartEvent("000", 1),
        ReportEvent("000", 20, {"eval/reward": 0.5, "eval/kl": 0.01}),
        CheckpointEvent("000", 20, "trials/000/checkpoints/step-000020", 4096),
        ReportEvent("000", 40, {"eval/reward": 0.75, "eval/kl": 0.02}),
        CheckpointEvent("000", 40, "trials/000/checkpoints/step-000040", 4096),
        FinishEvent("000", TrialState.COMPLETED, 40, 12.5),
        SuggestEvent("001", 1, {"training.learning_rate": 9e-4}, "sampler"),
        StartEvent("001", 1),
        ReportEvent("001", 20, {"eval/reward": float("nan"), "eval/kl": float("inf")}),
        DecideEvent("001", 20, "guard", "stop", "eval/reward is not finite"),
        FinishEvent(
            "001", TrialState.DIVERGED, 20, 6.0, TrialError("DivergedError", "奖励不是有限数")
        ),
        NoteEvent("第二个试验发散了"),
        FinalEvent("000", 40, 0),
    ]


@pytest.fixture
def journal(tmp_path: Path, sweep_event: SweepEvent, later_events: list[Event]) -> Path:
    """A whole journal of fifteen lines."""
    path = tmp_path / "journal.jsonl"
    writer, _ = JournalWriter.create(path, sweep_event)
    with writer:
        for event in later_events:
            writer.append(event)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; skips where this process may not mount one."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
