"""A sweep that is told to stop says so, leaves a readable folder and no process behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from easyds_tune.journal.events import TrialState
from easyds_tune.results.load import load_sweep_record
from tests.integration.sweeps import (
    command,
    marked_processes,
    spec_file,
    wait_until,
    wait_until_all_end,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_the_sweep(
    signum: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endless = {"max_steps": 100_000, "eval_steps": 5}
    space = {"training.learning_rate": {"low": 1e-4, "high": 1e-3}}
    spec_file(tmp_path, "long", training=endless, search_space=space, search={"num_trials": 3})
    folder = tmp_path / "results" / "long"
    journal = folder / "journal.jsonl"

    with command(tmp_path, "sweep", "long.yaml") as (process, mark):
        wait_until(
            lambda: (
                process.poll() is not None
                or (journal.is_file() and '"report"' in journal.read_text(encoding="utf-8"))
            ),
            120,
            "the first report",
        )
        assert len(marked_processes(mark)) > 1
        process.send_signal(signum)
        assert process.wait(timeout=60) == code, (tmp_path / "output.txt").read_text()
        wait_until_all_end(mark)

    record = load_sweep_record(folder)
    states = [trial.state for trial in record.trials.values()]
    assert TrialState.INTERRUPTED in states
    assert TrialState.RUNNING not in states
    assert (folder / "trials.parquet").is_file()
    best = json.loads((folder / "best.json").read_text(encoding="utf-8"))
    assert best["winner"]["trial"] in record.trials

    monkeypatch.chdir(tmp_path)
    assert main(["status", "long"]) == 0
    assert "INTERRUPTED" in capsys.readouterr().out
    output = (tmp_path / "output.txt").read_text(encoding="utf-8")
    assert "easyds-tune resume long" in output
    assert "Traceback" not in output
