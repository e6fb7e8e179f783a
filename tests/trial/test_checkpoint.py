"""Checkpoints are written whole or not at all, and what changed afterwards is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easyds_tune.errors import CheckpointError
from easyds_tune.trial.checkpoint import (
    MANIFEST,
    Checkpoint,
    drop_trainer_state,
    manifest_digest,
    remove_leftovers,
    verify_checkpoint,
    write_checkpoint,
)
from easyds_tune.trial.rejudge import rejudge
from easyds_tune.trial.run import run_trial
from tests.algorithms.small_ppo import ppo_spec
from tests.trial.small import ALGORITHMS, Algorithm, Lab


def save(folder: Path) -> None:
    (folder / "adapter.safetensors").write_bytes(b"weights")
    (folder / "trainer").mkdir()
    (folder / "trainer" / "state.pt").write_bytes(b"state")


@pytest.fixture
def written(tmp_path: Path) -> Checkpoint:
    return write_checkpoint(tmp_path / "checkpoints", "003", 120, save)


def test_a_checkpoint_is_named_by_its_step_and_lists_every_file(written: Checkpoint) -> None:
    manifest = json.loads((written.path / MANIFEST).read_text(encoding="utf-8"))
    assert written.path.name == "step-000120"
    assert (manifest["trial"], manifest["step"]) == ("003", 120)
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {
        "adapter.safetensors": 7,
        "trainer/state.pt": 5,
    }
    assert written.bytes == 7 + 5 + (written.path / MANIFEST).stat().st_size
    verify_checkpoint(written.path)


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        save(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, "003", 120, fail)
    assert not list(tmp_path.glob("step-*"))

    # What it left does not stand in the way of the next attempt.
    verify_checkpoint(write_checkpoint(tmp_path, "003", 120, save).path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000120"]


def test_a_failing_save_keeps_the_checkpoint_of_an_earlier_attempt(written: Checkpoint) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_checkpoint(written.path.parent, "003", 120, fail)
    verify_checkpoint(written.path)


def test_a_step_written_again_is_replaced(written: Checkpoint) -> None:
    again = write_checkpoint(
        written.path.parent, "003", 120, lambda folder: (folder / "new").write_bytes(b"")
    )
    assert again.path == written.path
    assert {path.name for path in again.path.iterdir()} == {"new", MANIFEST}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "adapter.safetensors").unlink(), "adapter.safetensors is missing"),
        (lambda path: (path / "adapter.safetensors").write_bytes(b"weightz"), "damaged"),
        (lambda path: (path / "trainer" / "state.pt").write_bytes(b"stat"), "trainer/state.pt"),
        (lambda path: (path / MANIFEST).unlink(), "no manifest.json"),
        (lambda path: (path / MANIFEST).write_text("{"), "manifest.json is damaged"),
        (lambda path: (path / MANIFEST).write_text("[]"), "manifest.json is damaged"),
        (
            lambda path: (path / MANIFEST).write_text('{"schema": 9, "step": 1, "files": {}}'),
            "schema 9",
        ),
        (lambda path: (path / MANIFEST).write_text('{"schema": 1, "files": {}}'), "damaged"),
        (
            lambda path: (path / MANIFEST).write_text('{"schema": 1, "step": 1, "files": []}'),
            "manifest.json is damaged",
        ),
    ],
)
def test_damage_is_named(written: Checkpoint, damage: Callable[[Path], None], said: str) -> None:
    damage(written.path)
    with pytest.raises(CheckpointError) as error:
        verify_checkpoint(written.path)
    assert said in str(error.value)
    assert str(written.path) in str(error.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_trial_pickles_nothing_outside_trainer(
    algorithm: Algorithm, lab_of: Callable[[Algorithm], Lab]
) -> None:
    for rank in (4, None):
        (report,) = lab_of(algorithm).run(steps=1, model__lora_r=rank)
        verify_checkpoint(report.checkpoint.path)
        files = [path for path in report.checkpoint.path.rglob("*") if path.is_file()]
        pickled = {path for path in files if is_pickle(path)}
        assert pickled
        assert {path.relative_to(report.checkpoint.path).parts[0] for path in pickled} == {
            "trainer"
        }
        assert sum(path.stat().st_size for path in files) == report.checkpoint.bytes


def is_pickle(path: Path) -> bool:
    content = path.read_bytes()
    if content.startswith(b"PK"):  # torch.save's zip
        return True
    try:
        return content.startswith(b"\x80") and bool(list(pickletools.genops(content)))
    except ValueError:
        return False


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def slipped_in(folder: Path, name: str, canary: Path) -> None:
    """Put a pickle that tells on whoever loads it where the name says."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": Canary(canary)}, folder / name)


def listed(folder: Path) -> None:
    """Rewrite the manifest so that it knows whatever lies there."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("algorithm", ["dpo", "ppo"])
def test_a_pickle_that_somebody_slipped_in_is_never_loaded(
    algorithm: str, tmp_path: Path, lab_of: Callable[[Algorithm], Lab]
) -> None:
    lab = Lab(ppo_spec(), tmp_path) if algorithm == "ppo" else lab_of("dpo")
    trial = {"deepspeed": "zero2", "steps": 1}
    (report,) = lab.run(**trial)
    engine = "engine" if algorithm == "ppo" else "global_step1"
    canary = tmp_path / "canary"
    for number, name in enumerate(
        (
            f"trainer/{engine}/mp_rank_00_model_states.pt",  # replaced
            f"trainer/{engine}/mp_rank_01_model_states.pt",  # new, where DeepSpeed looks by pattern
            f"trainer/{engine}/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "trainer/rng_state.pth",
            "trainer/latest_universal",
        )
    ):
        folder = shutil.copytree(report.checkpoint.path, tmp_path / f"{number}")
        slipped_in(folder, name, canary)
        with pytest.raises(CheckpointError, match=Path(name).name):
            verify_checkpoint(folder, to_go_on=True)
        (first, *_) = lab.run(resume_from=folder, **trial)
        assert any(Path(name).name in note for note in first.notes)
        assert not canary.exists()

    # Whoever rewrites the manifest as well is found out by its digest.
    folder = shutil.copytree(report.checkpoint.path, tmp_path / "listed")
    slipped_in(folder, f"trainer/{engine}/mp_rank_00_model_states.pt", canary)
    listed(folder)
    reports = run_trial(
        lab.trial(**trial), lab.bench, tmp_path / "again", [folder],
        digests={folder: report.checkpoint.digest},
    )  # fmt: skip
    assert "is not the one that this sweep wrote" in next(reports).notes[0]
    reports.close()
    assert not canary.exists()
    torch.load(folder / f"trainer/{engine}/mp_rank_00_model_states.pt", weights_only=False)
    assert canary.exists()  # the proof that it sings


@pytest.mark.parametrize("link", ["trainer", "trainer/state.pt", "trainer/more"])
def test_links_below_the_trainer_state_are_refused(
    link: str, written: Checkpoint, tmp_path: Path
) -> None:
    path = written.path / link
    target = tmp_path / "elsewhere"
    if path.exists():
        path.rename(target)
    else:
        target.mkdir()
    path.symlink_to(target)
    verify_checkpoint(written.path)
    with pytest.raises(CheckpointError, match="is not in"):
        verify_checkpoint(written.path, to_go_on=True)


def test_a_digest_knows_the_manifest_again(written: Checkpoint) -> None:
    assert manifest_digest(written.path) == written.digest
    assert verify_checkpoint(written.path, to_go_on=True, digest=written.digest) == written
    with pytest.raises(CheckpointError, match="not the one that this sweep wrote"):
        verify_checkpoint(written.path, digest="0" * 64)


# ---- what is deleted --------------------------------------------------------------------------


def test_without_its_trainer_state_a_checkpoint_can_be_judged_but_not_gone_on_from(
    written: Checkpoint,
) -> None:
    left = drop_trainer_state(written.path)
    assert {path.name for path in written.path.iterdir()} == {"adapter.safetensors", MANIFEST}
    assert left == sum(path.stat().st_size for path in written.path.iterdir())
    assert left == verify_checkpoint(written.path).bytes
    with pytest.raises(CheckpointError, match="trainer state is deleted"):
        verify_checkpoint(written.path, to_go_on=True)
    assert drop_trainer_state(written.path) == left


class Killed(BaseException):
    """In place of SIGKILL."""


@pytest.mark.parametrize("calls", range(40))
def test_killed_anywhere_while_dropping_a_checkpoint_still_verifies(
    calls: int, written: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th change of the disk is not made, nor any after it."""
    left = calls

    def guarded(change: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any, **kwargs: Any) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return change(*args, **kwargs)

        return call

    for name in ("open", "replace", "unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setattr(Path, "write_bytes", guarded(Path.write_bytes))
    try:
        drop_trainer_state(written.path)
    except Killed:
        pass
    else:
        assert calls > 5
    monkeypatch.undo()
    verify_checkpoint(written.path)
    drop_trainer_state(written.path)
    verify_checkpoint(written.path)
    assert {path.name for path in written.path.iterdir()} == {"adapter.safetensors", MANIFEST}


def test_a_real_checkpoint_is_judged_the_same_without_its_trainer_state(
    lab_of: Callable[[Algorithm], Lab],
) -> None:
    lab = lab_of("dpo")
    (report,) = lab.run(steps=1)
    before = rejudge(lab.bench, lab.trial(), report.checkpoint.path, on="search")
    assert drop_trainer_state(report.checkpoint.path) < report.checkpoint.bytes
    assert rejudge(lab.bench, lab.trial(), report.checkpoint.path, on="search") == before
    (first,) = lab.run(steps=1, resume_from=report.checkpoint.path)
    assert "trainer state is deleted" in first.notes[0]


def test_what_a_killed_attempt_left_is_removed_and_nothing_else(written: Checkpoint) -> None:
    folder = written.path.parent
    for name in (".step-000130.unfinished", ".step-000120.replaced", "notes"):
        (folder / name / "trainer").mkdir(parents=True)
        (folder / name / "trainer" / "half").write_bytes(b"x")
    remove_leftovers(folder)
    assert {path.name for path in folder.iterdir()} == {"step-000120", "notes"}
    verify_checkpoint(written.path, to_go_on=True)
    remove_leftovers(folder / "nowhere")


def test_a_save_that_fails_gives_its_room_back(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        save(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, "003", 120, fail)
    assert list(tmp_path.iterdir()) == []
