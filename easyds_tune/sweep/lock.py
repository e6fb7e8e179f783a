"""One driver a sweep: who runs it holds a lock in its folder.

The lock is the system's (flock), which lets go when its holder dies, however it dies. The file
says in words who that is; a driver that ends by itself leaves it empty.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from easyds_tune.errors import SpecError

FILE = "lock"
GLANCE_SECONDS = 0.3
"""For so long one who only looks may seem to hold the lock."""


@contextmanager
def lock(folder: Path) -> Iterator[str | None]:
    """Within the block, this process alone runs the sweep of `folder`, which exists.

    Yields a note where the last driver died with the lock in its hands, else None.
    Raises SpecError where another driver runs the sweep. The file is closed on exec: no process
    that this one starts keeps the lock after its death.
    """
    # What stands under this name must be our own file, not a link to somebody's.
    handle = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        if not _taken(handle):
            raise SpecError([
                f"name: {folder} is being run by {_holder(handle)}; "
                "wait for its end, or stop it with Ctrl-C or SIGTERM"
            ])  # fmt: skip
        note = None
        if os.fstat(handle).st_size:
            note = (
                f"the last driver, {_holder(handle)}, died without closing the sweep; "
                "its lock was taken over"
            )
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started": round(time.time(), 3)}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)
        try:
            yield note
        finally:
            os.ftruncate(handle, 0)
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def holder(folder: Path) -> str | None:
    """Who runs the sweep of `folder` just now, in words; None where nobody does."""
    try:
        handle = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(handle)
    finally:
        os.close(handle)
    return None


def _taken(handle: int) -> bool:
    """Take the lock; whether it was free, but for a glance."""
    give_up = time.monotonic() + GLANCE_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(0.02)
        else:
            return True


def _holder(handle: int) -> str:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who["started"]))
        return f"process {who['pid']} on {who['host']}, started {since}"
    except (ValueError, KeyError, TypeError, OverflowError):
        return "another process"
