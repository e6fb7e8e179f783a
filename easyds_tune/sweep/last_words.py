"""Say how to continue a sweep whose driver ends before it can say so itself.

Ray's C++ calls `_exit(1)` in the driver when the raylet is gone, and the system may kill it. No
handler of the driver runs then, so a second process waits for its end. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from easyds_tune.sweep.orphans import end_own_processes
from easyds_tune.sweep.signals import EXIT_INTERRUPTED, Signals, blocked

# Reads standard input to its end: nothing in it means that the driver did not end in order.
WAIT = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"


class LastWords:
    """Within the block, an end of this process without a word is followed by a line.

    way_on: how to continue the sweep. signals: what tells it to stop.
    """

    def __init__(self, way_on: str, signals: Signals) -> None:
        self._way_on = way_on
        self._signals = signals

    def __enter__(self) -> LastWords:
        line = (
            "error: the driver died without a message: Ray ended it because its raylet died, or "
            f"the system killed it; {self._way_on}"
        )
        with blocked():
            # In a session of its own, and -S: no import of the environment delays it.
            self._waiting = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", WAIT, line],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        self._waiting.communicate(b"in order")

    def give_up(self, what: str) -> NoReturn:
        """Say what happened and end this process at once, from whichever thread."""
        with suppress(OSError, ValueError):  # nothing takes the line
            print(f"error: {what}; {self._way_on}", file=sys.stderr, flush=True)
        self._waiting.communicate(b"in order")
        end_own_processes()
        first = self._signals.first
        os._exit(1 if first is None else EXIT_INTERRUPTED[first])
