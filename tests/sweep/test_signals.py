"""The first signal is kept, the second raises where it may, and none reaches who is cleaning up."""

from __future__ import annotations

import os
import signal
import time

import pytest

from easyds_tune.sweep.signals import (
    Interrupted,
    Signals,
    handlers,
    no_other_handlers,
    set_handlers,
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
