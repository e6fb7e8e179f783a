"""Print how to resume a sweep when its driver exits without a message of its own.

Ray's C++ calls `_exit(1)` in the driver once the raylet or the GCS is gone (ray 2.60), and the
system may kill the driver. Its Python code does not run then, so a second process waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from easyds_tune.sweep.orphans import end_own_processes
from easyds_tune.sweep.signals import EXIT_INTERRUPTED, Signals, blocked

# Standard input reaches its end when the driver exits; it is empty unless the exit was in order.
WAIT = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"


class ExitMessage:
    """Within the block, an exit of this process without a message prints how to resume.

    how_to_resume: the end of every message. signals: the signals that this driver got.
    """

    def __init__(self, how_to_resume: str, signals: Signals) -> None:
        self._how_to_resume = how_to_resume
        self._signals = signals

    def __enter__(self) -> ExitMessage:
        line = (
            "error: the driver died without a message: Ray ended it because its raylet or GCS is "
            f"gone, or the system killed it; {self._how_to_resume}"
        )
        with blocked():
            self._waiting = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", WAIT, line],  # -S: starts in 20 ms
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        self._waiting.communicate(b"in order")

    def give_up(self, what: str) -> NoReturn:
        """Print what happened and exit at once, from any thread: 1, or 130/143 after a signal."""
        with suppress(OSError, ValueError):  # standard error is full or closed
            print(f"error: {what}; {self._how_to_resume}", file=sys.stderr, flush=True)
        self._waiting.communicate(b"in order")
        end_own_processes()
        first = self._signals.first
        os._exit(1 if first is None else EXIT_INTERRUPTED[first])
