"""What a sweep does on a full disk: it waits until there is room, and says so."""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from easyds_tune.redact import redact
from easyds_tune.sweep.plan import format_bytes

Result = TypeVar("Result")

SECONDS_BETWEEN_TRIES = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room: the disk or the user's quota is used up."""
    return error.errno in _FULL


def wait_for_room(
    do: Callable[[], Result],
    where: Path,
    say: Callable[[str], object],
    tick: Callable[[], object],
) -> Result:
    """Do what writes to `where`; while the disk is full, say so once, wait, and try again.

    do: may be tried again after it failed for want of room. say: told that the sweep waits, and
    that it goes on. tick: called once a second meanwhile; what it raises ends the wait.
    """
    is_waiting = False
    while True:
        try:
            result = do()
        except OSError as error:
            if not is_full(error):
                raise
            if not is_waiting:
                _say(say, waits(where, error))
                is_waiting = True
        else:
            if is_waiting:
                _say(say, f"there is room on the disk of {where} again: the sweep goes on")
            return result
        time.sleep(SECONDS_BETWEEN_TRIES)
        tick()


def waits(where: Path, error: OSError) -> str:
    """Why a sweep waits, and what to do about it."""
    what = "your disk quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
    return (
        f"{what}: {free(where)} left for {where}; the sweep waits, and goes on by itself once "
        "there is room (delete something, or stop it with Ctrl-C and resume it later)"
    )


def free(where: Path) -> str:
    """Free bytes on the disk of a path, in words."""
    try:
        return format_bytes(shutil.disk_usage(where).free)
    except OSError:
        return "nobody knows how much is"


SECONDS_AFTER_FULL = 60.0
"""A trial that found the disk full tries again after this time, or once there is more room."""
MORE_ROOM = 2**20
"""Bytes by which what is free must have grown to count as more room."""


class Room:
    """Whether there is room for what is about to be written; says once when there is none."""

    def __init__(self, where: Path, say: Callable[[str], object]) -> None:
        self._where = where
        self._say = say
        self._is_short = False
        self._too_little = 0
        self._again = 0.0

    def was_too_little(self) -> None:
        """A trial has just found the disk full: what is free now does not do."""
        self._too_little = shutil.disk_usage(self._where).free + MORE_ROOM
        self._again = time.monotonic() + SECONDS_AFTER_FULL

    def is_short(self, needed: int) -> bool:
        """Whether fewer than `needed` bytes are free. Ask before a trial begins or goes on."""
        if time.monotonic() < self._again:
            needed = max(needed, self._too_little)
        left = shutil.disk_usage(self._where).free
        is_short = left < needed
        if is_short and not self._is_short:
            _say(
                self._say,
                f"the disk of {self._where} has {format_bytes(left)} left, and a checkpoint needs "
                f"{format_bytes(needed)}: no trial begins until there is room",
            )
        elif self._is_short and not is_short:
            _say(self._say, f"there is room on the disk of {self._where} again: trials begin")
        self._is_short = is_short
        return is_short


def _say(say: Callable[[str], object], text: str) -> None:
    with suppress(OSError):  # the output may be on the same disk
        say(text)


def warn(text: str) -> None:
    """A word on something that does not end the sweep."""
    with suppress(OSError):
        print(f"warning: {redact(text)}", file=sys.stderr, flush=True)
