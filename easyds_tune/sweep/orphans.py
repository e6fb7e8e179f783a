"""Ends what dead drivers have left behind: workers that hold slots, folders that hold disk."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from easyds_tune.errors import EasyDSError
from easyds_tune.sweep.processes import (
    IS_SUPPORTED,
    all_processes,
    children_of,
    has_dead_driver,
    mark_of,
    own_mark,
    start_of,
)

PATIENCE_SECONDS = 20.0
"""A killed process may need some time to give its memory back."""
PREFIX = "eds-"
OWNER = "driver"
"""The file of a private folder that holds its driver's mark."""
LONGEST_PARENT = 26
"""Characters of a folder below which Ray's sockets, 81 more, keep to the system's limit of 107."""


def end_orphans(patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Kill every process of this user whose driver is dead, and wait until it is gone.

    Returns how many there were. Processes without a driver's mark, and those of a driver that
    lives, whichever sweep it runs, are left alone.
    Raises EasyDSError where one is still there after `patience_seconds`.
    """
    if not IS_SUPPORTED:
        return 0
    killed, left = _end(find_orphans, patience_seconds)
    if left:
        raise EasyDSError(
            f"process {', '.join(map(str, left))} of a sweep whose driver died has been killed "
            "and does not end; it would hold a slot of this one; try again once it is gone"
        )
    return killed


def end_own_processes(patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Kill every process that carries this driver's mark; returns how many there were.

    One that is still there after `patience_seconds` is left to the next driver.
    """
    if not IS_SUPPORTED:
        return 0
    killed, _ = _end(_own_processes, patience_seconds)
    time.sleep(0.1)  # one that was just about to start has had no mark yet
    return killed + _end(_own_processes, patience_seconds)[0]


def _own_processes() -> set[int]:
    """The processes that carry this driver's mark, and their children.

    A child has no mark while it starts another program, and Ray's agents overwrite theirs.
    """
    marked = _marked(own_mark().__eq__)
    return marked | set(children_of(marked))


def _end(find: Callable[[], set[int]], patience_seconds: float) -> tuple[int, set[int]]:
    """Kill what is found until nothing is; (how many were killed, which of them do not end)."""
    killed: dict[int, int] = {}
    give_up = time.monotonic() + patience_seconds
    while left := find() | {pid for pid in killed if start_of(pid) == killed[pid]}:
        if time.monotonic() > give_up:
            return len(killed), left
        for pid in left:
            start = start_of(pid)
            if start is not None and killed.get(pid) != start:
                killed[pid] = start
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return len(killed), set()


def find_orphans() -> set[int]:
    """The processes of this user that carry the mark of a driver that is dead."""
    return _marked(has_dead_driver)


def _marked(is_wanted: Callable[[str], bool]) -> set[int]:
    """The processes of this user, but for this one, that carry such a mark."""
    marks = {pid: mark_of(pid) for pid in all_processes() if pid != os.getpid()}
    return {pid for pid, mark in marks.items() if mark and is_wanted(mark)}


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that only this user may enter, gone at the end of the block.

    Those of dead drivers are removed first. Its path is short enough for Ray's sockets: where that
    of temporary files is long, it stands in /tmp, as Ray's own would.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > LONGEST_PARENT:
        parent = Path("/tmp")
    _remove_left_folders(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        if IS_SUPPORTED:
            (folder / OWNER).write_text(own_mark(), encoding="utf-8")
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a private folder, whose it is last: one that is left half-way is still known."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != OWNER:
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
        (folder / OWNER).unlink(missing_ok=True)
        folder.rmdir()


def _remove_left_folders(parent: Path) -> None:
    for owner in parent.glob(f"{PREFIX}*/{OWNER}"):
        with suppress(OSError):
            mine = owner.parent.lstat().st_uid == os.geteuid()
            if mine and has_dead_driver(owner.read_text(encoding="utf-8")):
                _remove(owner.parent)
