"""Checkpoint folders: written whole or not at all, and verified before they are read.

A checkpoint is `step-000120/` with the trial's weights, `trainer/` with all it needs to go on,
and `manifest.json` with the SHA-256 of every other file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from easyds_tune.errors import CheckpointError

MANIFEST = "manifest.json"
TRAINER = "trainer"
SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole on disk."""

    path: Path
    bytes: int


def write_checkpoint(
    folder: Path, trial: str, step: int, save: Callable[[Path], None]
) -> Checkpoint:
    """Write `folder/step-XXXXXX` through a temporary name, so that it is never seen half-written.

    save: writes the files into the empty folder it is given. A checkpoint of the same step, left
    by an earlier attempt, is replaced.
    """
    target = folder / f"step-{step:06d}"
    unfinished = folder / f".{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save(unfinished)
    files = {
        path.relative_to(unfinished).as_posix(): {"sha256": _sha256(path), "bytes": size(path)}
        for path in sorted(unfinished.rglob("*"))
        if path.is_file()
    }
    manifest = {"schema": SCHEMA, "trial": trial, "step": step, "files": files}
    path = unfinished / MANIFEST
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    total = sum(entry["bytes"] for entry in files.values()) + size(path)
    for written in unfinished.rglob("*"):
        _sync(written)
    _sync(unfinished)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    _sync(folder)
    return Checkpoint(target, total)


def verify_checkpoint(path: Path) -> None:
    """Check a checkpoint against its manifest.

    Raises CheckpointError where the manifest or a file is missing, or a file has changed.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        schema = manifest["schema"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no {MANIFEST}; this is no whole checkpoint") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {MANIFEST} is damaged ({error})") from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: {MANIFEST} has schema {schema}, this release reads {SCHEMA}"
        )
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{path}: {name} is missing")
        if size(file) != entry["bytes"] or _sha256(file) != entry["sha256"]:
            raise CheckpointError(f"{path}: {name} is not as it was written; the file is damaged")


def drop_trainer_state(path: Path) -> int:
    """Delete what only a trial that goes on needs; the checkpoint can be judged and exported.

    Returns the bytes that are left. However far it came, the checkpoint verifies, and calling it
    again ends what was begun.
    """
    manifest = json.loads((path / MANIFEST).read_bytes())
    files = manifest["files"]
    kept = {name: files[name] for name in files if not name.startswith(f"{TRAINER}/")}
    if len(kept) < len(files):
        # First the promise, then the files: at no time does the manifest list what is gone.
        manifest["files"] = kept
        new = path / f".{MANIFEST}.new"
        new.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(new)
        os.replace(new, path / MANIFEST)
        _sync(path)
    shutil.rmtree(path / TRAINER, ignore_errors=True)
    return sum(int(entry["bytes"]) for entry in kept.values()) + size(path / MANIFEST)


def size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
