"""`easyds-tune repair`: a journal that every other command refuses is made whole, aloud."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from easyds_tune.journal.events import (
    CheckpointEvent,
    FinishEvent,
    Objective,
    ReportEvent,
    StartEvent,
    SuggestEvent,
    SweepEvent,
    TrialState,
)
from easyds_tune.journal.writer import JournalWriter

DERIVED = ["best.json", "metrics.parquet", "tensorboard", "trials.parquet"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two trials below a results folder, and nothing derived from it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results") / "dpo"
    folder.mkdir(parents=True)
    begin = SweepEvent("dpo", "dpo", Objective("eval/reward"), 2, 10, 1000.0)
    journal, _ = JournalWriter.create(folder / "journal.jsonl", begin)
    with journal:
        for number in range(2):
            name = f"{number:03d}"
            journal.append(SuggestEvent(name, number, {"algorithm.beta": 0.1}, "sampler"))
            journal.append(StartEvent(name, 1))
            journal.append(ReportEvent(name, 10, {"eval/reward": 0.5 + number}))
            journal.append(CheckpointEvent(name, 10, f"trials/{name}/checkpoints/step-000010", 9))
            journal.append(FinishEvent(name, TrialState.COMPLETED, 10, 3.0))
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_journal_gets_its_files_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "journal.jsonl").read_bytes()
    assert main(["repair", "dpo"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "results/dpo/journal.jsonl: nothing was wrong",
        "written anew from the journal: trials.parquet, metrics.parquet, best.json, tensorboard/",
    ]
    assert (folder / "journal.jsonl").read_bytes() == before
    assert names_in(folder) == sorted([*DERIVED, "journal.jsonl", "lock"])


def test_a_torn_end_is_cut_aloud(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = folder / "journal.jsonl"
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"crc":"01')
    assert main(["repair", "dpo"]) == 0
    said = capsys.readouterr().out
    assert "10 bytes of a torn end were cut off and kept in journal.torn-1.jsonl" in said
    assert journal.read_bytes() == before


def test_the_command_that_an_error_offers_mends_the_journal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"0.5", b"9.5")
    journal.write_bytes(b"".join(lines))
    assert main(["best", "dpo"]) == 1
    refused = capsys.readouterr().err
    assert refused.startswith("error: results/dpo/journal.jsonl:4: ")
    offered = re.search(r"mend it with: easyds-tune (.*)$", refused)
    assert offered

    assert main(shlex.split(offered[1])) == 0
    said = capsys.readouterr().out
    assert "1 of its lines are lost (4); as it was, the journal is journal.damaged-1.jsonl" in said
    kept = ["journal.damaged-1.jsonl", "journal.jsonl", "lock"]
    assert names_in(folder) == sorted([*DERIVED, *kept])
    assert main(["best", "dpo"]) == 0
    assert main(["status", "dpo"]) == 0
    assert "note: the journal was repaired" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_mended_fails_and_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = folder / "journal.jsonl"
    journal.write_bytes(b"x" + journal.read_bytes().replace(b'"sweep"', b'"SWEEP"'))
    before = journal.read_bytes()
    assert main(["repair", "dpo"]) == 1
    assert "restore the journal from a copy" in capsys.readouterr().err
    assert journal.read_bytes() == before
    assert names_in(folder) == ["journal.jsonl", "lock"]


def test_a_sweep_that_does_not_exist_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repair", "dpp"]) == 2
    assert capsys.readouterr().err == ("error: no sweep is called 'dpp': did you mean dpo?\n")
