"""Carries out what the collector decides: the journal first, then the files.

A crash in between leaves files that the journal calls deleted; `sweep_leftovers` removes them when
the sweep is resumed.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from easyds_tune.decisions.collector import DiskRules, to_collect
from easyds_tune.errors import CheckpointError
from easyds_tune.journal.events import CollectEvent, LostEvent, RestoreEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.trial.checkpoint import TRAINER, drop_trainer_state, verify_checkpoint

TRIALS, CHECKPOINTS = "trials", "checkpoints"
TRIAL_NAME = re.compile(r"\d{3,}")
CHECKPOINT_NAME = re.compile(r"step-\d{6,}|\.step-\d{6,}\.(unfinished|replaced|deleted)")
"""A checkpoint's folder; hidden while it is written, replaced or deleted."""


def collect(
    record: SweepRecord,
    rules: DiskRules,
    folder: Path,
    append: Callable[[CollectEvent], object],
    say: Callable[[str], object],
) -> None:
    """Delete what may go now, to save disk. Call it after every checkpoint and every trial's end.

    append: writes an event to the journal and applies it to the record.
    say: told of files that could not be deleted; they stay until the sweep is resumed.
    """
    while events := to_collect(record, rules):
        for event in events:
            path = folder / record.trials[event.trial].checkpoints[event.step]
            if event.what == "trainer":
                event = dataclasses.replace(event, bytes=_bytes_without_trainer(path))
            append(event)
            try:
                if not _is_inside(path, folder):
                    raise OSError("it lies outside of the sweep's trials")
                if event.what == "trainer":
                    _drop(path)
                else:
                    remove_checkpoint(path)
            except OSError as error:
                say(f"{path} could not be deleted, and takes up disk: {error}")


def lost_checkpoints(record: SweepRecord, folder: Path) -> list[LostEvent | CollectEvent]:
    """Events for checkpoints that the record has and the disk has not, as after a journal was cut.

    For a resume, before any trial is resumed from them. Not for simulated sweeps: these write none.
    """
    events: list[LostEvent | CollectEvent] = []
    for trial in record.trials.values():
        for step, relative in sorted(trial.checkpoints.items()):
            path = folder / relative
            if not path.is_dir():
                events.append(LostEvent(trial.id, step, "missing"))
            elif step not in trial.final_only and not (path / TRAINER).is_dir():
                left = _bytes_without_trainer(path)
                events.append(CollectEvent(trial.id, step, "trainer", left))
    return events


def found_checkpoints(record: SweepRecord, folder: Path) -> list[RestoreEvent]:
    """Events for whole checkpoints of ended trials that were lost, or whose journal lines were.

    For a resume or a repair. A resumed trial writes its own again, and collected ones stay
    deleted. What is found is judged and exported, never unpickled.
    """
    events = []
    for trial in record.trials.values():
        if not trial.state.is_final:
            continue
        for report in trial.reports:
            step = report.step
            path = folder / TRIALS / trial.id / CHECKPOINTS / f"step-{step:06d}"
            if step in trial.checkpoints or step in trial.collected or not path.is_dir():
                continue
            digest = trial.lost[step].digest if step in trial.lost else ""
            with suppress(CheckpointError):
                found = verify_checkpoint(path, digest=digest or None, trial=trial.id)
                if found.step == step:
                    where = str(path.relative_to(folder))
                    events.append(RestoreEvent(trial.id, step, where, found.bytes, found.digest))
    return events


def restore_note(found: RestoreEvent) -> str:
    """What the journal says beside such an event."""
    return (
        f"trial {found.trial}: the checkpoint of step {found.step} is whole, and is in the journal "
        "again"
    )


def sweep_leftovers(record: SweepRecord, folder: Path) -> list[str]:
    """Delete files of checkpoints that the record does not know; what was deleted, in words.

    Half-written and half-deleted ones, those that a worker wrote just before the driver died, and
    those of trials that the journal has lost. For a resume, while no trial runs. What is not named
    as a trial's checkpoint is somebody's own, and stays. Damaged ones stay too, to be mended by
    hand.
    """
    known = {
        folder / path
        for trial in record.trials.values()
        for path in (*trial.checkpoints.values(), *(lost.path for lost in trial.lost.values()))
    }
    told = []
    for checkpoints in sorted((folder / TRIALS).glob(f"*/{CHECKPOINTS}")):
        trial = checkpoints.parent.name
        if not TRIAL_NAME.fullmatch(trial) or not _is_inside(checkpoints, folder):
            continue
        for path in sorted(checkpoints.iterdir()):
            if path in known or not path.is_dir() or path.is_symlink():
                continue
            if not CHECKPOINT_NAME.fullmatch(path.name):
                continue
            shutil.rmtree(path)
            if not path.name.startswith("."):
                told.append(f"{path.relative_to(folder)} is not in the journal, and was deleted")
        if trial not in record.trials and not any(checkpoints.iterdir()):
            shutil.rmtree(checkpoints.parent)
    for entry in record.trials.values():
        for step in sorted(entry.final_only):
            _drop(folder / entry.checkpoints[step])
    return told


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint's folder; one that is half deleted has a hidden name."""
    hidden = path.with_name(f".{path.name}.deleted")
    if hidden.is_dir():
        shutil.rmtree(hidden)
    try:
        path.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden)


def _drop(path: Path) -> None:
    """Delete a checkpoint's trainer state, if it is there."""
    if not (path / TRAINER).is_dir():
        return
    try:
        drop_trainer_state(path)
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        shutil.rmtree(path / TRAINER)  # its manifest is damaged, so nobody reads it anyway


def _bytes_without_trainer(path: Path) -> int:
    files = (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if file.relative_to(path).parts[0] != TRAINER)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to((folder / TRIALS).resolve())
