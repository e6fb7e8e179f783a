"""Signals while Ray starts and ends, and Ray's own death: the code, the line to type, no trace."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyds_tune.journal.events import TrialState
from easyds_tune.results.load import load_sweep_record
from tests.integration.sweeps import (
    command,
    marked_processes,
    spec_file,
    wait_until,
    wait_until_all_end,
)
from tests.integration.test_simulated_sweep import LANDSCAPE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the temporary files of a sweep, with a path short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def write_spec(folder: Path, trials: int) -> list[str]:
    """A sweep on curves; the arguments that run it."""
    path = spec_file(
        folder,
        "curves",
        model={"lora_r": 8},
        training={"max_steps": 54, "eval_steps": 6},
        search_space={"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        search={"num_trials": trials},
    )
    return ["sweep", path.name, "--simulate", str(LANDSCAPE)]


def named(mark: str, name: str) -> int | None:
    """The process of this name that carries the mark."""
    for pid in marked_processes(mark):
        try:
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == name:
                return pid
        except OSError:
            continue
    return None


def has_written(folder: Path, event: str) -> bool:
    journal = folder / "results" / "curves" / "journal.jsonl"
    return journal.is_file() and f'"event":"{event}"' in journal.read_text(encoding="utf-8")


def send(process: subprocess.Popen[str], signum: int, *delays: float) -> None:
    """Send a signal to the whole group after each of the delays, in seconds, while it lives."""
    for delay in delays:
        time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signum)


def is_interrupted(folder: Path, process: subprocess.Popen[str], code: int) -> None:
    """The command ends with the code and the line to type, and leaves no trial running."""
    returned = process.wait(timeout=30)
    output = (folder / "output.txt").read_text(encoding="utf-8")
    assert returned == code, output
    assert "easyds-tune resume curves" in output
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    record = load_sweep_record(folder / "results" / "curves")
    assert TrialState.RUNNING not in [trial.state for trial in record.trials.values()]


@pytest.mark.parametrize(
    ("signum", "delays", "code"),
    [
        (signal.SIGTERM, [0.3, 0.02], 143),
        (signal.SIGINT, [0.1], 130),
    ],
)
def test_signals_while_ray_starts(
    signum: int, delays: list[float], code: int, tmp_path: Path, temporary: Path
) -> None:
    with command(tmp_path, *write_spec(tmp_path, trials=200)) as (process, mark):
        wait_until(lambda: named(mark, "gcs_server") is not None, 30, "Ray's first process")
        send(process, signum, *delays)
        is_interrupted(tmp_path, process, code)
        wait_until_all_end(mark)
    assert list(temporary.glob("eds-*")) == []


def test_signals_while_ray_ends(tmp_path: Path, temporary: Path) -> None:
    with command(tmp_path, *write_spec(tmp_path, trials=2)) as (process, mark):
        wait_until(lambda: has_written(tmp_path, "finals"), 30, "the end of the search")
        send(process, signal.SIGINT, 0.2, 0.1)
        is_interrupted(tmp_path, process, 130)
        wait_until_all_end(mark)
    assert list(temporary.glob("eds-*")) == []
    with command(tmp_path, "resume", "curves") as (process, _):
        assert process.wait(timeout=40) == 0
    record = load_sweep_record(tmp_path / "results" / "curves")
    assert record.final is not None
    assert record.final.winner is not None


def lines_after_the_death_of(name: str, folder: Path) -> list[str]:
    """What a searching sweep prints once this process of Ray's is killed: last, how to resume."""
    with command(folder, *write_spec(folder, trials=500)) as (process, mark):
        wait_until(lambda: has_written(folder, "report"), 30, "the first report")
        pid = named(mark, name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert process.wait(timeout=25) == 1
        wait_until_all_end(mark)
    lines = (folder / "output.txt").read_text(encoding="utf-8").splitlines()
    sweep = (folder / "results" / "curves").resolve()
    assert lines[-1] == (
        f"error: Ray's {name} died; interrupted; continue with easyds-tune resume {sweep}"
    )
    return lines


def test_rays_death_is_noticed_and_said(tmp_path: Path, temporary: Path) -> None:
    lines = lines_after_the_death_of("raylet", tmp_path)
    assert not [line for line in lines if "Traceback" in line or "core_worker" in line]
    assert not [line for line in lines if "Raylet is terminated" in line]
    assert list(temporary.glob("eds-*")) == []
    record = load_sweep_record(tmp_path / "results" / "curves")
    states = {trial.state for trial in record.trials.values()}
    assert TrialState.RUNNING not in states
    assert TrialState.INTERRUPTED in states
    # A death of Ray's is no trial's own.
    assert not any(trial.failures for trial in record.trials.values())


def test_a_driver_that_is_stuck_in_a_dead_ray_says_so(tmp_path: Path, temporary: Path) -> None:
    lines_after_the_death_of("gcs_server", tmp_path)
