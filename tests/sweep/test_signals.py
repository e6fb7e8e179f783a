"""The first signal is kept, the second raises where it may, and none reaches who is cleaning up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from easyds_tune.sweep.signals import (
    Interrupted,
    Signals,
    blocked,
    handlers,
    no_other_handlers,
    set_handlers,
    unblock_sigterm,
)
from tests.sweep.children import child, line_of

SLOW_TO_END = """
import atexit, os, signal, time
from easyds_tune.sweep.signals import Signals
atexit.register(lambda: (time.sleep(0.5), print("ended", flush=True)))
with Signals().heard():
    os.kill(os.getpid(), signal.SIGTERM)
print("after", flush=True)
"""

ENDS_BY_SIGTERM = f"""
import sys
from {unblock_sigterm.__module__} import unblock_sigterm
print("started", flush=True)
sys.stdin.readline()
print("goes on", flush=True)
sys.stdin.read()
unblock_sigterm()
print("still here")
"""


def tell(*signums: int) -> None:
    for signum in signums:
        os.kill(os.getpid(), signum)


def test_the_first_signal_is_kept_and_raises_where_it_is_asked_for() -> None:
    signals = Signals()
    signals.may_raise = True
    with signals.heard():
        signals.check()
        tell(signal.SIGTERM)
        assert (signals.first, signals.is_second) == (signal.SIGTERM, False)
        with pytest.raises(Interrupted):
            signals.check()


def test_a_second_signal_raises_once() -> None:
    signals = Signals()
    signals.may_raise = True
    with signals.heard():
        tell(signal.SIGTERM)
        with pytest.raises(Interrupted) as stop:
            tell(signal.SIGINT)
        assert stop.value.signum == signal.SIGINT
        tell(signal.SIGINT, signal.SIGTERM)


def test_no_signal_raises_while_something_is_cleaned_up() -> None:
    signals = Signals()
    with signals.heard():
        tell(signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
        assert (signals.first, signals.is_second) == (signal.SIGTERM, True)


def test_the_handlers_of_before_are_back_after_the_block() -> None:
    before = handlers()
    with Signals().heard():
        assert handlers() != before
    assert handlers() == before


def test_nobody_else_sets_a_handler_within_the_block() -> None:
    before = handlers()
    with no_other_handlers():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert handlers() == before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    set_handlers(before)
    assert handlers() == before


def test_a_process_that_was_told_to_stop_shuts_down_undisturbed() -> None:
    with child(SLOW_TO_END) as process:
        assert line_of(process) == "after"
        for _ in range(3):
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        assert line_of(process) == "ended"
        assert process.wait(timeout=10) == 0


def test_a_blocked_signal_is_heard_at_the_end_of_the_block() -> None:
    signals = Signals()
    with signals.heard():
        with blocked():
            signal.raise_signal(signal.SIGTERM)  # to this thread, the only one that blocks it
            assert signals.first is None
        assert signals.first == signal.SIGTERM


def test_what_is_started_in_the_block_ignores_the_signals_until_it_unblocks_them() -> None:
    with blocked():
        process = subprocess.Popen(
            [sys.executable, "-c", ENDS_BY_SIGTERM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"goes on\n"
        process.stdin.close()
        assert process.wait(timeout=10) == -signal.SIGTERM
