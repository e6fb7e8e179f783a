"""Find a sweep's folder and read its record."""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from pathlib import Path

from easyds_tune.errors import SpecError
from easyds_tune.journal.reader import JournalReader
from easyds_tune.journal.replay import SweepRecord, read_record

JOURNAL_NAME = "journal.jsonl"
RESULTS_ROOT = Path("results")


def load_sweep_record(folder: Path) -> SweepRecord:
    """Replay the journal in a sweep's folder; `torn_bytes` says what its end lost.

    Raises:
        SpecError: the folder holds no journal.
        JournalError: the journal is damaged.
    """
    path = folder / JOURNAL_NAME
    if not path.is_file():
        raise SpecError(
            [f"a sweep's folder must hold {JOURNAL_NAME}, got {folder}; name a sweep's folder"]
        )
    return read_record(JournalReader(path))


def find_sweep(name: str, root: Path = RESULTS_ROOT) -> Path:
    """The folder of a sweep, given by its name under `root` or by a path.

    Raises:
        SpecError: there is none; the message names those that there are.
    """
    for folder in (root / name, Path(name)):
        with suppress(OSError):  # a name that no file system takes is no sweep's either
            if (folder / JOURNAL_NAME).is_file():
                return folder
    known = sorted(path.parent.name for path in root.glob(f"*/{JOURNAL_NAME}"))
    # os.path.isdir is False for names that no file can have; Path.is_dir raises.
    if any(os.path.isdir(folder / "checkpoints") for folder in (root / name, Path(name))):
        raise SpecError(
            [
                f"{name} is a trial of easyds-tune train, not a sweep; for a best checkpoint "
                "and an export run it as a sweep with search.num_trials: 1"
            ]
        )
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        remedy = f"did you mean {close[0]}?"
    elif known:
        remedy = f"{root}/ holds {', '.join(known)}"
    else:
        remedy = f"{root}/ holds no sweep yet; start one with easyds-tune sweep SPEC"
    raise SpecError([f"no sweep is called {name!r}: {remedy}"])
