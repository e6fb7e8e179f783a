"""Checkpoints are written whole or not at all, and what changed afterwards is noticed."""

from __future__ import annotations

import json
import pickletools
from collections.abc import Callable
from pathlib import Path

import pytest

from easyds_tune.errors import CheckpointError
from easyds_tune.trial.checkpoint import MANIFEST, Checkpoint, verify_checkpoint, write_checkpoint
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
