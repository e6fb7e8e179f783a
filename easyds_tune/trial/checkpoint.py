"""Checkpoint folders: written whole or not at all, and verified before they are read.

A checkpoint is `step-000120/` with the trial's weights, `trainer/` with all it needs to go on,
and `manifest.json` with the SHA-256 of every other file. What lies under `trainer/` is unpickled
when a trial goes on, so nothing there is read unless the manifest lists it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyds_tune import progress
from easyds_tune.errors import CheckpointError

MANIFEST = "manifest.json"
TRAINER = "trainer"
SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole on disk.

    digest: SHA-256 of its manifest, and so of all that it lists.
    """

    path: Path
    step: int
    bytes: int
    digest: str


def write_checkpoint(
    folder: Path, trial: str, step: int, save: Callable[[Path], None]
) -> Checkpoint:
    """Write `folder/step-XXXXXX` through a temporary name, so that it is never seen half-written.

    save: writes the files into the empty folder it is given. A checkpoint of the same step, left
    by an earlier attempt, is replaced. Where this fails, it leaves nothing that takes room.
    """
    target = folder / f"step-{step:06d}"
    unfinished = folder / f".{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        save(unfinished)
        manifest = {
            "schema": SCHEMA,
            "trial": trial,
            "step": step,
            "files": {
                path.relative_to(unfinished).as_posix(): {
                    "sha256": _sha256(path),
                    "bytes": size(path),
                }
                for path in sorted(unfinished.rglob("*"))
                if path.is_file()
            },
        }
        written = _write_manifest(unfinished / MANIFEST, manifest)
        for path in unfinished.rglob("*"):
            _sync(path)
        _sync(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if target.exists():
        replaced = folder / f".{target.name}.replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
        unfinished.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        unfinished.rename(target)
    _sync(folder)
    progress.made()
    return Checkpoint(target, step, _total(manifest) + len(written), _digest(written))


def verify_checkpoint(
    path: Path, *, to_go_on: bool = False, digest: str | None = None, trial: str | None = None
) -> Checkpoint:
    """Check a checkpoint against its manifest.

    to_go_on: its trainer state will be unpickled, so it has to be there, without any file or link
    that the manifest does not list. digest: what the manifest's own SHA-256 has to be.
    trial: whose checkpoint it has to be.
    Raises CheckpointError where the manifest or a file is missing, or anything has changed.
    """
    try:
        content = (path / MANIFEST).read_bytes()
        manifest = json.loads(content)
        files, schema, step = manifest["files"], manifest["schema"], manifest["step"]
        total = _total(manifest)
    except OSError as error:
        raise CheckpointError(f"{path}: no {MANIFEST}; this is no whole checkpoint") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: {MANIFEST} is damaged ({error})") from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{path}: {MANIFEST} has schema {schema}, this release reads {SCHEMA}"
        )
    if digest is not None and _digest(content) != digest:
        raise CheckpointError(f"{path}: {MANIFEST} is not the one that this sweep wrote")
    if trial is not None and manifest.get("trial") != trial:
        raise CheckpointError(f"{path}: {MANIFEST} is of trial {manifest.get('trial')}")
    for name, entry in files.items():
        if (problem := _problem(path / name, entry)) is not None:
            raise CheckpointError(f"{path}: {name} {problem}")
        progress.made()
    if to_go_on:
        _check_trainer(path, files)
    return Checkpoint(path, step, total + len(content), _digest(content))


def _problem(file: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with a file that the manifest lists."""
    if not file.is_file():
        return "is missing"
    try:
        is_same = size(file) == entry["bytes"] and _sha256(file) == entry.get("sha256")
    except OSError as error:
        return f"cannot be read ({error})"
    return None if is_same else "is not as it was written; the file is damaged"


def manifest_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's manifest, for whoever wants to know it again later."""
    return _digest((path / MANIFEST).read_bytes())


def drop_trainer_state(path: Path) -> int:
    """Delete what only a trial that goes on needs; the checkpoint can be judged and exported.

    Returns the bytes that are left. However far it came, the checkpoint verifies, and calling it
    again ends what was begun.
    """
    content = (path / MANIFEST).read_bytes()
    manifest = json.loads(content)
    kept = {
        name: entry
        for name, entry in manifest["files"].items()
        if not name.startswith(f"{TRAINER}/")
    }
    if len(kept) < len(manifest["files"]):
        # First the promise, then the files: at no time does the manifest list what is gone.
        manifest["files"] = kept
        new = path / f".{MANIFEST}.new"
        content = _write_manifest(new, manifest)
        _sync(new)
        os.replace(new, path / MANIFEST)
        _sync(path)
    shutil.rmtree(path / TRAINER, ignore_errors=True)
    return _total(manifest) + len(content)


def remove_leftovers(folder: Path) -> None:
    """Delete what an attempt that was killed left half-written among a trial's checkpoints."""
    for name in (".step-*.unfinished", ".step-*.replaced"):
        for path in folder.glob(name):
            shutil.rmtree(path, ignore_errors=True)


def size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def _check_trainer(path: Path, files: dict[str, Any]) -> None:
    if not any(name.startswith(f"{TRAINER}/") for name in files):
        raise CheckpointError(f"{path}: its trainer state is deleted, so no trial can go on")
    for found in [path / TRAINER, *(path / TRAINER).rglob("*")]:
        name = found.relative_to(path).as_posix()
        if found.is_symlink() or not (found.is_dir() or name in files):
            raise CheckpointError(f"{path}: {name} is not in {MANIFEST}; nobody knows who wrote it")


def _write_manifest(path: Path, manifest: dict[str, Any]) -> bytes:
    content = json.dumps(manifest, indent=1).encode()
    path.write_bytes(content)
    return content


def _total(manifest: dict[str, Any]) -> int:
    """Bytes of the files that a manifest lists."""
    total: int = sum(entry["bytes"] for entry in manifest["files"].values())
    return total


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
