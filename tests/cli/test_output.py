"""Output that nobody takes, and the lines that a command gives to be typed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from easyds_tune.cli.common import to_type
from easyds_tune.cli.main import main
from easyds_tune.cli.sweep import tell_the_end
from easyds_tune.errors import SweepError
from easyds_tune.journal.events import FinalEvent, Objective, SweepEvent, TrialState
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.spec.load import load_sweep
from easyds_tune.sweep.drive import Sweep, drive
from easyds_tune.sweep.preflight import CheckedRecords
from easyds_tune.sweep.run import keep_spec
from tests.cli.test_finished import write_sweep

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.fixture
def finished(workspace: Path) -> Path:
    """The folder of a sweep that is over and that found a winner."""
    folder = write_sweep("done", TrialState.COMPLETED)
    journal, _ = JournalWriter.open(folder / "journal.jsonl")
    with journal:
        journal.append(FinalEvent("000", 10, 0))
    (folder / "spec.resolved.json").write_text(
        '{"data_hashes": {}, "working_folder": "."}', encoding="utf-8"
    )
    spec = load_sweep("dpo", ["name=done", "search.num_trials=1"])
    keep_spec(folder, spec, given=spec)
    return folder


def run(
    folder: Path, *argv: str, redirect: str = "", encoding: str = "utf-8"
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, from a shell that redirects its output."""
    words = shlex.join([sys.executable, "-m", "easyds_tune.cli.main", *argv])
    return subprocess.run(
        ["sh", "-c", f"{words} {redirect}"],
        cwd=folder,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        timeout=50,
    )


@needs_dev_full
def test_a_sweep_whose_end_cannot_be_printed_keeps_its_code(finished: Path) -> None:
    done = run(Path.cwd(), "resume", "done", redirect="> /dev/full")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: what the sweep found cannot be printed ([Errno 28] No space left on device); see "
        "easyds-tune status done"
    ]


def test_a_sweep_without_an_output_keeps_its_code(finished: Path) -> None:
    done = run(Path.cwd(), "resume", "done", redirect=">&-")
    assert (done.returncode, done.stderr) == (0, "")


@needs_dev_full
def test_a_text_that_cannot_be_printed_has_failed_without_a_second_complaint(
    workspace: Path,
) -> None:
    done = run(workspace, "plan", "dpo", redirect="> /dev/full")
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


def test_an_encoding_that_lacks_a_sign_shows_its_escape(finished: Path) -> None:
    done = run(Path.cwd(), "status", "done", encoding="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"0.50 \xb1 0.10" in done.stdout


@pytest.mark.parametrize("code", [130, 143])
def test_an_interrupted_sweep_can_be_typed_from_its_own_folder(
    workspace: Path, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace / "results" / "done"
    folder.mkdir(parents=True)
    assert tell_the_end(code, Path("results/done")) == code
    assert "  easyds-tune resume done\n" in capsys.readouterr().out
    monkeypatch.chdir(folder)
    assert tell_the_end(code, Path(".")) == code
    line = f"  easyds-tune resume done --results {shlex.quote(str(folder.parent))}\n"
    assert line in capsys.readouterr().out


def test_a_line_to_type_leads_to_the_sweep_from_wherever_it_is_typed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = workspace / "with space" / "it's"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    write_sweep("my sweep", TrialState.COMPLETED)
    folder = place / "results" / "my sweep"
    assert to_type("status", folder) == "easyds-tune status 'my sweep'"
    for here in (workspace, folder):
        monkeypatch.chdir(here)
        words = shlex.split(to_type("status", folder))
        assert main(words[1:]) == 0
        assert shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2]) == [
            "easyds-tune", "resume", *words[2:],
        ]  # fmt: skip


def test_a_sweep_that_ends_early_gives_a_line_that_a_shell_takes(
    workspace: Path,
) -> None:
    folder = Path("with space") / "dpo"
    first = SweepEvent("dpo", "dpo", Objective("eval/reward"), 4, 10, 1000.0)
    folder.mkdir(parents=True)
    journal, begun = JournalWriter.create(folder / "journal.jsonl", first)
    spec = load_sweep("dpo")

    def begin(*_: object) -> None:
        raise RuntimeError("the cluster is gone")

    sweep = Sweep(spec, CheckedRecords([], [], [], fitting=24), [], folder)
    with journal, pytest.raises(SweepError, match="the cluster is gone") as caught:
        drive(sweep, journal, SweepRecord.begin(begun), begin)
    words = shlex.split(str(caught.value).partition("continue with ")[2])
    assert words == ["easyds-tune", "resume", str(workspace / folder)]
    assert main(["status", words[2]]) == 0
