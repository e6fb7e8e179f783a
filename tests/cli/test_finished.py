"""`status`, `best` and `export` of sweeps that are missing, damaged or without a winner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import (
    CheckpointEvent,
    CollectEvent,
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
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.spec.load import load_sweep

Refusal = Callable[..., list[str]]
COMMANDS = (["status", "{}"], ["best", "{}"], ["export", "{}", "--to", "out"])
COMMAND_IDS = ["status", "best", "export"]


def write_sweep(name: str, state: TrialState) -> Path:
    """A journal of one trial that reported once and ended in `state`."""
    folder = Path("results") / name
    folder.mkdir(parents=True)
    begin = SweepEvent(name, "dpo", Objective("eval/reward"), 1, 10, 1000.0)
    checkpoint = "trials/000/checkpoints/step-000010"
    events: list[Event] = [
        SuggestEvent("000", 0, {"algorithm.beta": 0.1}, "default"),
        StartEvent("000", 1),
        ReportEvent("000", 10, {"eval/reward": 0.5, "eval/reward_stderr": 0.1, "eval/kl": 0.02}),
        CheckpointEvent("000", 10, checkpoint, 1024),
        FinishEvent("000", state, 10, 3.0),
    ]
    journal, _ = JournalWriter.create(folder / "journal.jsonl", begin)
    with journal:
        for event in events:
            journal.append(event)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=COMMAND_IDS)
def test_a_sweep_that_does_not_exist_is_refused(
    refused: Refusal, command: list[str], workspace: Path
) -> None:
    argv = [word.format("dpo") for word in command]
    assert refused(*argv) == [
        "no sweep is called 'dpo': results/ holds no sweep yet; "
        "start one with easyds-tune sweep SPEC"
    ]
    write_sweep("dpo-2", TrialState.COMPLETED)
    assert refused(*argv) == ["no sweep is called 'dpo': did you mean dpo-2?"]
    write_sweep("other", TrialState.COMPLETED)
    for strange in ("", "..", "a\0b", "results", "zzz"):
        argv = [word.format(strange) for word in command]
        assert refused(*argv) == [f"no sweep is called {strange!r}: results/ holds dpo-2, other"]


@pytest.mark.parametrize("command", COMMANDS, ids=COMMAND_IDS)
@pytest.mark.parametrize("damage", ["empty", "garbage", "middle"])
def test_a_damaged_journal_fails_without_a_traceback(
    workspace: Path, capsys: pytest.CaptureFixture[str], command: list[str], damage: str
) -> None:
    journal = write_sweep("dpo", TrialState.COMPLETED) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"000", b"001")
    journal.write_bytes({"empty": b"", "garbage": b"\xff{\n", "middle": b"".join(lines)}[damage])
    assert main([word.format("dpo") for word in command]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not Path("out").exists()


def test_a_torn_end_still_shows_what_came_before(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = write_sweep("dpo", TrialState.COMPLETED) / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert main(["status", "dpo"]) == 0
    assert "000" in capsys.readouterr().out


@pytest.mark.parametrize("top", ["0", "-5", "1", "999999999999"])
def test_any_number_of_shown_trials_is_taken(
    workspace: Path, capsys: pytest.CaptureFixture[str], top: str
) -> None:
    write_sweep("dpo", TrialState.COMPLETED)
    assert main(["status", "dpo", "--top", top]) == 0
    assert "000" in capsys.readouterr().out


def test_a_sweep_may_be_named_by_its_path(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep("dpo", TrialState.COMPLETED)
    folder.rename(workspace / "elsewhere")
    assert main(["best", str(workspace / "elsewhere")]) == 0
    assert main(["best", "elsewhere", "--results", str(workspace)]) == 0
    assert "algorithm.beta: 0.1" in capsys.readouterr().out


def test_a_sweep_without_a_winner_ends_as_three(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep("dpo", TrialState.DIVERGED)
    assert main(["best", "dpo"]) == 3
    assert capsys.readouterr().out.strip()


def write_finals(kl: float) -> None:
    """A sweep of two trials whose finals turned the search's order round; KL at most 0.2."""
    folder = Path("results") / "finals"
    folder.mkdir(parents=True)
    bounds = (Bound("eval/kl", max=0.2),)
    begin = SweepEvent("finals", "dpo", Objective("eval/reward"), 2, 10, 1000.0, bounds=bounds)
    journal, _ = JournalWriter.create(folder / "journal.jsonl", begin)
    with journal:
        for number, (search, finals) in enumerate([(0.5, 0.8), (0.9, 0.4)]):
            trial = f"{number:03d}"
            checkpoint = f"trials/{trial}/checkpoints/step-000010"
            metrics = {"eval/reward": search, "eval/reward_stderr": 0.1, "eval/kl": 0.1}
            events: list[Event] = [
                SuggestEvent(trial, number, {"algorithm.beta": 0.1 + number}, "sampler"),
                StartEvent(trial, 1),
                ReportEvent(trial, 10, metrics),
                CheckpointEvent(trial, 10, checkpoint, 1024),
                FinishEvent(trial, TrialState.COMPLETED, 10, 3.0),
            ]
            values = {
                "eval/reward": [finals + 0.01 * (n % 5) for n in range(32)],
                "eval/kl": [10 * (kl + 0.01 * (n % 3)) for n in range(32)],
            }
            events.append(FinalistEvent(trial, 10, checkpoint, values, {"eval/kl": [10.0] * 32}))
            for event in events:
                journal.append(event)


def test_best_tells_what_the_finals_measured(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_finals(kl=0.1)
    assert main(["best", "finals"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Trial 000 at step 10 is the best of 2 finalists: eval/reward 0.8")
    assert lines[0].endswith("(search: 0.50 ± 0.10, biased upward).")
    assert lines[1].startswith("eval/kl 0.1")
    assert lines[1].endswith("): at most 0.2.")
    assert "trials/000/checkpoints/step-000010" in lines[-1]
    assert main(["best", "finals", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)
    assert (best["judged_by"], best["winner"]["trial"]) == ("finals", "000")


def test_finals_in_which_noise_reaches_over_the_bound_end_as_three_with_the_nearest_miss(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_finals(kl=0.19)
    for argv in (["best", "finals"], ["best", "finals", "--json"]):
        assert main(argv) == 3
        out = capsys.readouterr().out
        assert "none of 2 finalists surely keeps all bounds" in out
        assert "The nearest miss is trial 000 at step 10" in out


def resolved(folder: Path) -> None:
    """What an export reads besides the journal."""
    found = {
        "spec": load_sweep("dpo").model_dump(mode="json"),
        "data_hashes": {"train": "0" * 64},
        "working_folder": str(Path.cwd()),
    }
    (folder / "spec.resolved.json").write_text(json.dumps(found), encoding="utf-8")


def test_an_export_to_a_folder_that_is_there_is_refused(refused: Refusal, workspace: Path) -> None:
    folder = write_sweep("dpo", TrialState.COMPLETED)
    resolved(folder)
    [found] = refused("export", "dpo", "--to", "data")
    assert str(workspace / "data") in found


def test_an_export_without_the_resolved_spec_is_refused(refused: Refusal, workspace: Path) -> None:
    folder = write_sweep("dpo", TrialState.COMPLETED)
    for content in (None, "{", '{"spec": {}}'):
        if content is not None:
            (folder / "spec.resolved.json").write_text(content, encoding="utf-8")
        [found] = refused("export", "dpo", "--to", "out")
        assert "spec.resolved.json: cannot be read as a resolved spec" in found


def test_a_winner_whose_checkpoint_is_gone_is_told_so(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep("gone", TrialState.COMPLETED)
    resolved(folder)
    assert main(["best", "gone"]) == 0
    out = capsys.readouterr().out
    assert "step-000010 (there is none on this disk)" in out
    assert main(["export", "gone", "--to", "out"]) == 1
    err = capsys.readouterr().err
    assert "the checkpoint of trial 000 at step 10 is no longer there" in err
    assert not Path("out").exists()


def test_a_report_whose_checkpoint_was_collected_wins_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The collector never does this to the best one; a resume may find its files missing."""
    folder = write_sweep("collected", TrialState.COMPLETED)
    resolved(folder)
    journal, _ = JournalWriter.open(folder / "journal.jsonl")
    with journal:
        journal.append(CollectEvent("000", 10, "checkpoint"))
    assert main(["best", "collected"]) == 3
    assert "No trial is fit to win" in capsys.readouterr().out
    assert main(["export", "collected", "--to", "out"]) == 3
    assert "has no checkpoint that is fit to win" in capsys.readouterr().err


def test_a_winner_that_never_had_a_checkpoint_is_shown_without(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("results") / "bare"
    folder.mkdir(parents=True)
    begin = SweepEvent("bare", "dpo", Objective("eval/reward"), 1, 10, 1000.0)
    journal, _ = JournalWriter.create(folder / "journal.jsonl", begin)
    with journal:
        journal.append(SuggestEvent("000", 0, {}, "default"))
        journal.append(ReportEvent("000", 10, {"eval/reward": 0.5}))
        journal.append(FinishEvent("000", TrialState.COMPLETED, 10, 3.0))
    assert main(["best", "bare"]) == 0
    assert "checkpoint:" not in capsys.readouterr().out
