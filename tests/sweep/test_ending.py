"""A sweep ends, is resumed and is repaired with a winner that exists on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from easyds_tune.cli.main import main
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import FinalEvent, LostEvent, NoteEvent, RestoreEvent
from easyds_tune.journal.reader import read_events
from easyds_tune.results.load import load_sweep_record
from easyds_tune.spec.load import load_sweep
from easyds_tune.sweep.ending import final_events, mend
from easyds_tune.sweep.resume import resume_sweep
from tests.integration.sweeps import spec_file
from tests.results.finished import FinishedSweep


def checkpoint(folder: Path, trial: str) -> Path:
    return folder / "trials" / trial / "checkpoints" / "step-000040"


def winner_in(folder: Path) -> str | None:
    winner = json.loads((folder / "best.json").read_text(encoding="utf-8"))["winner"]
    return None if winner is None else winner["trial"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that has ended: trial 002 won its finals, 001 came second."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results") / "small"
    folder.mkdir(parents=True)
    FinishedSweep(folder, [0.4, 0.8, 0.9], finals=True).journal.close()
    return folder


def test_a_sweep_that_ends_says_who_takes_the_place_of_a_lost_winner(folder: Path) -> None:
    (checkpoint(folder, "002") / "adapter_model.safetensors").write_bytes(b"cut")
    said: list[str] = []
    events = final_events(load_sweep_record(folder), folder, said.append)
    [note, lost, final] = events
    assert isinstance(note, NoteEvent)
    assert said == [note.text]
    assert note.text == (
        "trials/002/checkpoints/step-000040: the checkpoint of trial 002 at step 40 is damaged "
        "(adapter_model.safetensors is not as it was written; the file is damaged); "
        "trial 001 at step 40 takes its place as the winner"
    )
    assert isinstance(lost, LostEvent)
    assert final == FinalEvent("001", 40, 0)


def test_best_falls_back_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "journal.jsonl").read_bytes()
    shutil.rmtree(checkpoint(folder, "002"))
    assert main(["best", "small"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Trial 001 at step 40 is the best of 2 finalists")
    assert "The checkpoint of trial 002 at step 40 is left out: it is missing." in out
    assert "trial 001 at step 40 takes its place as the winner" in err
    assert "easyds-tune repair small" in err
    assert main(["best", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["winner"]["trial"] == "001"
    assert (folder / "journal.jsonl").read_bytes() == before  # it only reads


def test_without_any_whole_checkpoint_nothing_is_handed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        shutil.rmtree(checkpoint(folder, f"00{number}"))
    assert main(["best", "small"]) == 3
    assert "no other checkpoint is fit to win" in capsys.readouterr().err


def test_repair_names_the_next_winner_and_takes_the_first_one_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = checkpoint(folder, "002")
    lost.rename("backup")
    assert main(["repair", "small"]) == 0
    assert "takes its place as the winner" in capsys.readouterr().err
    assert winner_in(folder) == "001"
    record = load_sweep_record(folder)
    assert record.final == FinalEvent("001", 40, 0)
    assert any("takes its place" in note for note in record.notes)
    assert main(["repair", "small"]) == 0
    assert capsys.readouterr().err == ""  # said once

    Path("backup").rename(lost)
    assert main(["repair", "small"]) == 0
    assert winner_in(folder) == "002"
    assert load_sweep_record(folder).final == FinalEvent("002", 40, 0)
    kinds = [type(entry.event) for entry in read_events(folder / "journal.jsonl")]
    assert kinds[-2:] == [RestoreEvent, FinalEvent]


def test_a_checkpoint_other_than_the_lost_one_does_not_come_back(folder: Path) -> None:
    lost = checkpoint(folder, "002")
    shutil.rmtree(lost)
    mend(folder, load_sweep_record(folder), print)
    FinishedSweep.write(folder, "002", 40, 7.0)
    mend(folder, record := load_sweep_record(folder), print)
    assert list(record.trials["002"].lost) == [40]


def test_where_every_finalist_is_lost_the_end_is_open_for_other_finals(folder: Path) -> None:
    for number in range(3):
        shutil.rmtree(checkpoint(folder, f"00{number}"))
    mend(folder, record := load_sweep_record(folder), print)
    assert record.final == FinalEvent("002", 40, 0)  # which `resume` sees is not so any more
    assert [list(trial.lost) for trial in record.trials.values()] == [[40], [40], [40]]


def ended_with_a_spec(tmp_path: Path) -> Path:
    """The folder of a sweep that has ended, with its spec; trial 002 won."""
    spec = load_sweep(str(spec_file(tmp_path, "small")))
    folder = tmp_path / "results" / "small"
    folder.mkdir(parents=True)
    resolved = {
        "spec": spec.model_dump(mode="json"), "working_folder": str(tmp_path), "data_hashes": {},
    }  # fmt: skip
    (folder / "spec.resolved.json").write_text(json.dumps(resolved), encoding="utf-8")
    FinishedSweep(folder, [0.4, 0.8, 0.9, 0.1], finals=True).journal.close()
    return folder


def test_resume_of_an_ended_sweep_names_the_next_winner_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ended_with_a_spec(tmp_path)
    (checkpoint(folder, "002") / "manifest.json").unlink()
    (folder / ".spec.resolved.json.unfinished").write_text("{", encoding="utf-8")
    assert resume_sweep(folder) == 0
    assert winner_in(folder) == "001"
    assert load_sweep_record(folder).final == FinalEvent("001", 40, 0)
    assert not (folder / ".spec.resolved.json.unfinished").exists()
    before = (folder / "journal.jsonl").read_bytes()
    assert resume_sweep(folder) == 0
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_resume_that_is_rejected_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ended_with_a_spec(tmp_path)
    before = (folder / "journal.jsonl").read_bytes()
    shutil.rmtree(folder / "trials")
    with pytest.raises(SpecError, match="none of the 4 checkpoints"):
        resume_sweep(folder)
    assert (folder / "journal.jsonl").read_bytes() == before
