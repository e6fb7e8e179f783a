"""What a dead Ray worker wrote to standard error: the only trace of a library that aborts.

Ray redirects the standard error of each worker to `worker-ID-JOB-PID.err` and switches Python's
fault handler on, which writes a stack there on SIGSEGV, SIGABRT and the like.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

LINES = 40
"""Lines kept before a crash, and of its report."""
CRASH = re.compile(r"\*\*\* SIG|Fatal Python error")
NOISE = re.compile(r":|Extension modules:|.*<frozen importlib")
"""Lines without information: Ray's own markers, and the import system's frames."""


class LastWords(NamedTuple):
    """The end of a worker's standard error."""

    reason: str
    """The line that says most."""
    text: str


def last_words_in(logs: Path, pid: int) -> LastWords | None:
    """The last words of a worker, by the logs of a Ray session; None where there are none."""
    for path in logs.glob(f"worker-*-{pid}.err"):
        return words_of(path.read_text(encoding="utf-8", errors="replace"))
    return None


def words_of(text: str) -> LastWords | None:
    """The last words in a worker's standard error; None where it holds markers alone."""
    lines = [line for line in text.splitlines() if line.strip() and not NOISE.match(line)]
    if not lines:
        return None
    crash = next((number for number, line in enumerate(lines) if CRASH.search(line)), None)
    if crash is None:
        return LastWords(lines[-1].strip(), "\n".join(lines[-LINES:]))
    fatal = next((line for line in lines[crash:] if "Fatal Python error" in line), lines[crash])
    before = lines[max(0, crash - LINES) : crash]
    told = [*before[-1:], fatal]
    kept = before + lines[crash : crash + LINES]
    return LastWords("; ".join(line.strip() for line in told), "\n".join(kept))
