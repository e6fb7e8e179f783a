"""Whether a sweep's folder holds a sweep yet."""

from __future__ import annotations

from pathlib import Path

from easyds_tune.results.load import JOURNAL_NAME
from easyds_tune.results.resolved import RESOLVED_NAME, UNFINISHED_RESOLVED_NAME, WRITTEN_NAME
from easyds_tune.sweep.lock import FILE as LOCK

BEFORE_THE_FIRST_EVENT = {
    LOCK, JOURNAL_NAME, WRITTEN_NAME, RESOLVED_NAME, UNFINISHED_RESOLVED_NAME,
}  # fmt: skip
"""What stands in a sweep's folder before the sweep begins."""


def never_began(folder: Path) -> bool:
    """Whether the folder is of a sweep whose driver died before the first event was on disk: there
    is nothing in it to go on from, and a new sweep may have it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if {path.name for path in folder.iterdir()} - BEFORE_THE_FIRST_EVENT:
        return False
    journal = folder / JOURNAL_NAME
    return not journal.exists() or b"\n" not in journal.read_bytes()
