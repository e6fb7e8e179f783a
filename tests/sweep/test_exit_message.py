"""An exit without a message is followed by how to resume; an exit in order is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.sweep.children import ROOT

DRIVER = """
import os, signal, sys
from easyds_tune.sweep.exit_message import ExitMessage
from easyds_tune.sweep.signals import Signals
signals = Signals()
with signals.heard(), ExitMessage("continue with resume curves", signals) as message:
    exec(sys.argv[1])
"""
GIVE_UP = """
import threading
thread = threading.Thread(target=message.give_up, args=["Ray's raylet died"])
thread.start()
thread.join()
"""


def end(code: str) -> subprocess.CompletedProcess[str]:
    """A driver that runs `code` within the block."""
    return subprocess.run(
        [sys.executable, "-c", DRIVER, code],
        cwd=ROOT,
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "returned"),
    [
        ("os._exit(1)", 1),
        ("os.killpg(0, signal.SIGTERM); os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_an_exit_without_a_message_prints_how_to_resume(code: str, returned: int) -> None:
    ended = end(code)
    assert ended.returncode == returned
    assert ended.stderr.startswith("error: the driver died without a message: ")
    assert ended.stderr.endswith("; continue with resume curves\n")


@pytest.mark.parametrize("code", ["pass", "sys.exit(0)"])
def test_an_exit_in_order_prints_nothing(code: str) -> None:
    ended = end(code)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("before", "returned"),
    [("", 1), ("os.kill(os.getpid(), signal.SIGTERM); os.kill(0, 0)", 143)],
)
def test_giving_up_prints_what_happened_once(before: str, returned: int) -> None:
    ended = end(f"{before}\n{GIVE_UP}")
    assert ended.returncode == returned
    assert ended.stderr == "error: Ray's raylet died; continue with resume curves\n"
