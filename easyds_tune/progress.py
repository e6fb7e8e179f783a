"""Signs of life: a file that says by when the next one is due, for whoever watches from outside.

The training code says `made()` wherever something is done; a worker that is watched rewrites its
file now and then. Standard library only, and nothing but a comparison until `watch` is called.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WRITE_SECONDS = 0.5
"""The file is written again after so long at the earliest: signs of life come by the thousand."""


@dataclass
class _Watch:
    path: Path
    floor_seconds: float
    factor: float
    rank: int
    trial: str | None
    longest: float
    """Seconds between two signs of life, the most that was seen in this process."""
    made_at: float
    written_at: float


_watched: _Watch | None = None


def watch(path: Path, floor_seconds: float, factor: float, rank: int = 0) -> None:
    """Keep a file of this process: JSON of pid, trial, rank, written and due, always whole.

    written, due: seconds of the machine's monotonic clock. due: by when the next sign of life is to
    come, `floor_seconds` from the last one or `factor` times the longest that it ever took, if that
    is longer; null while no trial runs, and nothing is due.
    """
    global _watched
    now = time.monotonic()
    _watched = _Watch(path, floor_seconds, factor, rank, None, 0.0, now, now)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(_watched)


def unwatch() -> None:
    """Keep no file any more, and remove it."""
    global _watched
    if _watched is not None:
        _watched.path.unlink(missing_ok=True)
        _watched = None


def works_on(trial: str | None) -> None:
    """The process works on this trial from now on; None: it rests until it is asked for more."""
    if _watched is not None:
        _watched.trial = trial
        _watched.made_at = time.monotonic()
        _write(_watched)


def made() -> None:
    """Something is done: an update, a batch, a file."""
    if _watched is None:
        return
    now = time.monotonic()
    took, _watched.made_at = now - _watched.made_at, now
    if took > _watched.longest and _watched.trial is not None:
        _watched.longest = took
    if now - _watched.written_at >= WRITE_SECONDS:
        _write(_watched)


def _write(watched: _Watch) -> None:
    watched.written_at = time.monotonic()
    patience = max(watched.floor_seconds, watched.factor * watched.longest)
    content = {
        "pid": os.getpid(),
        "trial": watched.trial,
        "rank": watched.rank,
        "written": watched.written_at,
        "due": None if watched.trial is None else watched.written_at + patience,
    }
    new = watched.path.with_name(watched.path.name + ".new")
    with suppress(OSError):  # a disk that is full must not end what is still running
        new.write_text(json.dumps(content), encoding="utf-8")
        os.replace(new, watched.path)
