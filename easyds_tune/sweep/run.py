"""Begin a sweep: check the spec, make its folder, and drive it to its winner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml

from easyds_tune import __version__
from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import NoteEvent, SweepEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.redact import redact
from easyds_tune.results.load import JOURNAL_NAME
from easyds_tune.results.resolved import RESOLVED_NAME, UNFINISHED_RESOLVED_NAME, WRITTEN_NAME
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.drive import Sweep, drive
from easyds_tune.sweep.fingerprints import fingerprints
from easyds_tune.sweep.folder import never_began
from easyds_tune.sweep.lock import lock
from easyds_tune.sweep.preflight import CheckedRecords, preflight, sweep_folder

if TYPE_CHECKING:
    from easyds_tune.decisions.decider import Decider
    from easyds_tune.sweep.recorder import Recorder

VERSIONED = ("ray", "torch", "transformers", "peft", "trl", "deepspeed", "optuna", "datasets",
             "accelerate", "tensorboard", "pyarrow")  # fmt: skip


def run_sweep(
    spec: SweepSpec,
    written: str | None = None,
    stream: TextIO | None = None,
    simulate: Path | None = None,
) -> int:
    """Run a new sweep and return the exit code of the command.

    written: the spec as its author wrote it, kept beside the results.
    simulate: learning curves that stand in for training; everything else is as in a real sweep.
    Raises SpecError before anything starts where the spec does not fit its files or the machine.
    """
    records = check(spec, simulate)
    notes: list[str] = list(records.notes)
    from easyds_tune.decisions.warm_start import warm_points

    points = warm_points(spec, note=notes.append)
    folder = sweep_folder(spec)
    folder.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(spec, records, points, folder, simulate)

    def begin(recorder: Recorder, decider: Decider) -> None:
        for note in notes:
            recorder.append(NoteEvent(note))

    with lock(folder):
        if not never_began(folder):
            raise SpecError([f"name: {folder} was made by another sweep just now"])
        (folder / JOURNAL_NAME).unlink(missing_ok=True)
        _write_spec(sweep, written)
        journal, first = JournalWriter.create(folder / JOURNAL_NAME, _sweep_event(spec, records))
        with journal:
            return drive(sweep, journal, SweepRecord.begin(first), begin, stream)


def check(spec: SweepSpec, simulate: Path | None, *, new_folder: bool = True) -> CheckedRecords:
    """The records of a spec that fits its files and this machine; else SpecError."""
    if simulate is None:
        return preflight(spec, new_folder=new_folder)
    from easyds_tune.sweep.simulated import check_simulation

    return check_simulation(spec, simulate, new_folder=new_folder)


def _sweep_event(spec: SweepSpec, records: CheckedRecords) -> SweepEvent:
    return SweepEvent(
        name=spec.name,
        algorithm=spec.algorithm.type,
        objective=objectives_of(spec)[0],
        num_trials=spec.search.num_trials,
        max_steps=spec.budget(records.fitting).max_steps,
        created=round(time.time(), 3),
        space={path: param.model_dump() for path, param in spec.search_space.items()},
        bounds=bounds_of(spec),
        objectives=objectives_of(spec),
        finals_per_judge=records.finals_per_judge,
    )


def _write_spec(sweep: Sweep, written: str | None) -> None:
    """Keep the spec as written, and resolved with everything that a resume needs."""
    spec, records, folder = sweep.spec, sweep.records, sweep.folder
    text = written
    if text is None:
        text = yaml.safe_dump(spec.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    (folder / WRITTEN_NAME).write_text(redact(text), encoding="utf-8")  # a comment may hold a key
    resolved = {
        "schema": 1,
        "spec": spec.model_dump(mode="json"),
        "budget": spec.budget(records.fitting).model_dump(),
        "train_records": len(records.train),
        "held_out_records": len(records.held_out),
        "judge_prompts": len(records.prompts),
        "data_hashes": records.hashes,
        "fingerprints": fingerprints(spec, sweep.simulate),
        "points": sweep.points,
        "simulate": str(sweep.simulate.resolve()) if sweep.simulate else None,
        "notes": records.notes,
        "versions": versions(),
        "git_revision": _git_revision(),
        "working_folder": str(Path.cwd()),
    }
    _write_whole(folder, resolved)


def keep_spec(folder: Path, spec: SweepSpec, given: SweepSpec) -> None:
    """Let `spec` be what the sweep in this folder goes on with from now on; `given` is as its
    author gave it last, without extensions."""
    raw = json.loads((folder / RESOLVED_NAME).read_text(encoding="utf-8"))
    specs = {"spec": spec.model_dump(mode="json"), "given": given.model_dump(mode="json")}
    _write_whole(folder, raw | specs)


def _write_whole(folder: Path, resolved: dict[str, Any]) -> None:
    """Write what a resume needs besides the journal: whole, or not at all."""
    draft = folder / UNFINISHED_RESOLVED_NAME
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(redact(json.dumps(resolved, ensure_ascii=False, indent=1), is_spec=True))
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(folder / RESOLVED_NAME)


def versions() -> dict[str, str]:
    """Releases of what the numbers of a sweep depend on."""
    own = {"easyds-tune": __version__, "python": sys.version.split()[0]}
    return own | {name: metadata.version(name) for name in VERSIONED}


def _git_revision() -> str | None:
    """The commit of the working folder, with + where files are changed; None outside git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
