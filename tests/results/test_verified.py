"""Only checkpoints that verify on disk are handed over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.journal.events import (
    CheckpointEvent,
    CollectEvent,
    LostEvent,
    Objective,
    ReportEvent,
)
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results import verified as module
from easyds_tune.results.best import best_json, write_best
from easyds_tune.results.finals import find_best, settle
from easyds_tune.results.load import load_sweep_record
from easyds_tune.results.verified import loss_notes, verified, verified_while_running
from easyds_tune.trial.checkpoint import drop_trainer_state, verify_checkpoint
from tests.results.finished import FinishedSweep

GONE = "trials/{0}/checkpoints/step-000040"


def damage(folder: Path, how: str) -> None:
    match how:
        case "missing":
            shutil.rmtree(folder)
        case "truncated":
            (folder / "adapter_model.safetensors").write_bytes(b"")
        case "no manifest":
            (folder / "manifest.json").unlink()
        case "of another trial":
            other = folder.parents[2] / "000" / "checkpoints" / folder.name
            shutil.rmtree(folder)
            shutil.copytree(other, folder)


def place(record: SweepRecord) -> tuple[str, int] | None:
    best = find_best(record)
    return None if best is None else (best.trial.id, best.step)


@pytest.mark.parametrize("how", ["missing", "truncated", "no manifest", "of another trial"])
@pytest.mark.parametrize("finals", [True, False])
def test_the_next_best_takes_the_place_of_a_winner_that_does_not_verify(
    tmp_path: Path, how: str, *, finals: bool
) -> None:
    sweep = FinishedSweep(tmp_path, [0.4, 0.8, 0.9], finals=finals)
    assert place(sweep.record) == ("002", 40)
    damage(tmp_path / GONE.format("002"), how)
    after, losses = verified(sweep.record, tmp_path)
    assert [(loss.trial, loss.step) for loss in losses] == [("002", 40)]
    assert place(after) == ("001", 40)
    assert place(sweep.record) == ("002", 40)  # the given record stays as it is
    [note] = loss_notes(sweep.record, after, losses)
    word = "missing" if how == "missing" else "damaged ("
    assert f"the checkpoint of trial 002 at step 40 is {word}" in note
    assert note.endswith("; trial 001 at step 40 takes its place as the winner")
    best = json.loads(write_best(sweep.record, tmp_path).read_text(encoding="utf-8"))
    assert best["winner"]["checkpoint"] == GONE.format("001")
    assert GONE.format("002") not in json.dumps(best).replace(best["why"], "")
    assert "The checkpoint of trial 002 at step 40 is left out" in best["why"]


def test_who_moves_up_is_verified_too_until_none_is_left(tmp_path: Path) -> None:
    sweep = FinishedSweep(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], finals=False)
    for number in range(1, 6):
        damage(tmp_path / GONE.format(f"00{number}"), "missing")
    after, losses = verified(sweep.record, tmp_path)
    assert (place(after), len(losses)) == (("000", 40), 5)
    damage(tmp_path / GONE.format("000"), "truncated")
    after, losses = verified(sweep.record, tmp_path)
    assert (place(after), len(losses)) == (None, 6)
    notes = loss_notes(sweep.record, after, losses)
    assert any(note.endswith("; no other checkpoint is fit to win") for note in notes)


def test_without_finals_an_earlier_checkpoint_of_the_same_trial_may_take_its_place(
    tmp_path: Path,
) -> None:
    sweep = FinishedSweep(tmp_path, [0.4, 0.9], finals=False)
    sweep.report("001", 50, 1.5)
    assert place(sweep.record) == ("001", 50)
    damage(tmp_path / "trials/001/checkpoints/step-000050", "missing")
    after, _ = verified(sweep.record, tmp_path)
    assert place(after) == ("001", 40)


def test_a_lost_default_is_still_what_the_winner_is_compared_with(tmp_path: Path) -> None:
    sweep = FinishedSweep(tmp_path, [0.4, 0.8], finals=True)
    gain = best_json(sweep.record)["gain_over_default"]
    damage(tmp_path / GONE.format("000"), "missing")
    best = json.loads(write_best(sweep.record, tmp_path).read_text(encoding="utf-8"))
    assert best["gain_over_default"] == gain
    assert best["default"]["checkpoint"] is None


def test_the_others_keep_their_order_when_a_finalist_is_lost(tmp_path: Path) -> None:
    sweep = FinishedSweep(tmp_path, [0.4, 0.8, 0.7, 0.9], finals=True)
    before = settle(sweep.record)
    sweep.append(LostEvent("001", 40, "missing"))
    after = settle(sweep.record)
    assert before is not None
    assert after is not None
    wanted = [f.trial.id for f in before.finalists if f.trial.id != "001"]
    assert [f.trial.id for f in after.finalists] == wanted


def test_what_lost_its_trainer_state_to_save_disk_verifies(tmp_path: Path) -> None:
    sweep = FinishedSweep(tmp_path, [0.4], finals=True)
    drop_trainer_state(tmp_path / GONE.format("000"))
    sweep.record.trials["000"].final_only.add(40)
    assert verified(sweep.record, tmp_path)[1] == []


def test_the_front_holds_whole_checkpoints_alone(tmp_path: Path) -> None:
    two = (Objective("eval/reward"), Objective("eval/kl", "min"))
    sweep = FinishedSweep(tmp_path, [0.4, 0.8], finals=False, objectives=two)
    assert len(best_json(sweep.record)["front"]) == 2
    damage(tmp_path / GONE.format("000"), "truncated")
    best = json.loads(write_best(sweep.record, tmp_path).read_text(encoding="utf-8"))
    assert [point["trial"] for point in best["front"]] == ["001"]


def test_simulated_checkpoints_are_not_looked_for(tmp_path: Path) -> None:
    sweep = FinishedSweep(tmp_path, [0.4], finals=False)
    sweep.append(ReportEvent("000", 50, {"eval/reward": 0.9, "eval/kl": 0.1}))
    sweep.append(CheckpointEvent("000", 50, "trials/000/checkpoints/step-000050", 0))
    after, losses = verified(sweep.record, tmp_path)
    assert (place(after), losses) == (("000", 50), [])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose checkpoints were hashed, in this order."""
    trials: list[str] = []

    def hash_and_note(path: Path, **options: Any) -> object:
        trials.append(options["trial"])
        return verify_checkpoint(path, **options)

    monkeypatch.setattr(module, "verify_checkpoint", hash_and_note)
    return trials


def test_only_what_best_json_names_is_hashed_and_once(tmp_path: Path, hashed: list[str]) -> None:
    sweep = FinishedSweep(tmp_path, [0.1 * (n + 1) for n in range(9)], finals=True)
    damage(tmp_path / GONE.format("001"), "missing")  # best.json does not name it
    assert verified(sweep.record, tmp_path)[1] == []
    assert sorted(hashed) == ["000", "005", "006", "007", "008"]
    best = json.loads(write_best(sweep.record, tmp_path).read_text(encoding="utf-8"))
    assert [runner_up["trial"] for runner_up in best["runners_up"]] == ["007", "006", "005"]
    assert len(hashed) == 5

    (tmp_path / GONE.format("008") / "adapter_model.safetensors").write_bytes(b"cut")
    assert [loss.trial for loss in verified(sweep.record, tmp_path)[1]] == ["008"]
    assert hashed[5:] == ["008", "004"]  # which moves up among the runners-up


@pytest.mark.parametrize("what", ["checkpoint", "trainer"])
def test_what_a_running_driver_deletes_meanwhile_is_not_lost(tmp_path: Path, what: str) -> None:
    sweep = FinishedSweep(tmp_path, [0.4, 0.8, 0.9], finals=False)
    reads = []

    def load() -> SweepRecord:
        record = load_sweep_record(tmp_path)
        reads.append(record)
        if len(reads) == 1:
            sweep.append(CollectEvent("002", 40, what, 10))  # type: ignore[arg-type]
            if what == "checkpoint":
                shutil.rmtree(tmp_path / GONE.format("002"))
            else:
                drop_trainer_state(tmp_path / GONE.format("002"))
        return record

    before, after, losses = verified_while_running(load, tmp_path)
    assert losses == []
    assert before is reads[1]
    assert place(after) == (("001" if what == "checkpoint" else "002"), 40)
    assert len(reads) == 2


def test_a_checkpoint_that_the_journal_still_names_is_lost(tmp_path: Path) -> None:
    FinishedSweep(tmp_path, [0.4, 0.8, 0.9], finals=False).journal.close()
    damage(tmp_path / GONE.format("002"), "truncated")
    _, after, losses = verified_while_running(lambda: load_sweep_record(tmp_path), tmp_path)
    assert [loss.trial for loss in losses] == ["002"]
    assert place(after) == ("001", 40)
