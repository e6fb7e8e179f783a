"""Real Python processes for tests: started, spoken to by lines, and ended for certain."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from easyds_tune.sweep.processes import start_of

ROOT = Path(__file__).parents[2]
Child = subprocess.Popen[str]


@contextmanager
def child(code: str, *arguments: str | Path, **environment: str) -> Iterator[Child]:
    """A process that runs `code`; it is killed when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def line_of(process: Child) -> str:
    """The next line that a child prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_until(happened: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for something and return for how long, or fail and say for what."""
    start = time.monotonic()
    while not happened():
        assert time.monotonic() < start + seconds, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return time.monotonic() - start


def has_ended(pid: int) -> bool:
    """Whether a process is no more, but for its parent's notice of it."""
    return start_of(pid) is None
