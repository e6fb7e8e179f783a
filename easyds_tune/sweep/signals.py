"""What SIGINT and SIGTERM tell a sweep: to stop, and the second of them to stop at once."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handlers = dict[int, Callable[[int, FrameType | None], Any] | int | None]
EXIT_INTERRUPTED: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit code of a command that a signal has told to stop."""


class Interrupted(BaseException):
    """The sweep was told to stop; `signum` says by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Signals:
    """Which signals have told this driver to stop.

    The first is only kept, for those to see who may end what they do: raising in the handler may
    break Ray in the middle of a call. A second one raises Interrupted, where it may.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.is_second = False
        """Whether another one has come since: the sweep ends at once."""
        self.may_raise = False
        """Whether a second one raises where it comes: not while something is cleaned up."""

    def check(self) -> None:
        """Raise Interrupted where a signal has come."""
        if self.first is not None:
            raise Interrupted(self.first)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Within the block, a second signal raises Interrupted where it comes."""
        self.may_raise = True
        try:
            yield
        finally:
            self.may_raise = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within the block, signals come here. After it, they do what they did before it.

        Where one has come, the process is about to end: none disturbs it while Python shuts down.
        """
        before = handlers()
        for number in EXIT_INTERRUPTED:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            if self.first is not None:
                atexit.register(_ignore_signals)
            set_handlers(before)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        signal.alarm(0)  # Ray's C++, where it hears SIGTERM first, has set one that aborts in 3 s
        if self.first is None:
            self.first = signum
        elif not self.is_second:
            self.is_second = True
            if self.may_raise:
                raise Interrupted(signum)


def handlers() -> Handlers:
    """Who is told of the signals that stop a sweep."""
    return {number: signal.getsignal(number) for number in EXIT_INTERRUPTED}


def set_handlers(those: Handlers) -> None:
    """Have `those` told, whatever C has set in the meantime."""
    for number, handler in those.items():
        if handler is not None:  # None: one of C's, which Python cannot set
            signal.signal(number, handler)


@contextmanager
def blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM in this thread; pending ones are delivered at the end of the block.

    Processes and threads that start within the block inherit it and keep it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_INTERRUPTED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_sigterm() -> None:
    """Unblock SIGTERM in a worker of Ray's, which inherits it blocked from the raylet."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


@contextmanager
def no_other_handlers() -> Iterator[None]:
    """Within the block, no signal gets another handler from Python."""
    set_handler = signal.signal
    signal.signal = lambda signalnum, handler: signal.getsignal(signalnum)
    try:
        yield
    finally:
        signal.signal = set_handler


def _ignore_signals() -> None:
    for number in EXIT_INTERRUPTED:
        signal.signal(number, signal.SIG_IGN)
