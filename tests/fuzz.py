"""What all fuzz tests share: how many cases there are, and how much one of them may take."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from hypothesis import HealthCheck, settings

EXAMPLES = os.environ.get("EASYDS_FUZZ_EXAMPLES")
"""Cases of each test; unset in the ordinary suite, which runs the same few ones every time."""
FUZZ = settings(
    max_examples=int(EXAMPLES or 60),
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
HEAVY = settings(FUZZ, max_examples=max(6, FUZZ.max_examples // 10))
"""For tests whose cases are large."""

SECONDS = 4.0
"""Of processor time that one case may take."""
GROWTH = 2**31
"""Bytes of address space that one case may add."""


class _TooSlow(BaseException):
    """No code under test catches this one."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fails a case that takes more than SECONDS, wherever it hangs, or more than GROWTH."""

    def stop(*_: object) -> NoReturn:
        raise _TooSlow

    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + GROWTH, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    except _TooSlow as error:
        raise AssertionError(f"took more than {SECONDS} s of processor time") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def assert_clear(problems: Sequence[str]) -> None:
    """Every refusal says something, and says it in words rather than by the name of a class."""
    assert problems
    for problem in problems:
        assert problem.strip()
        assert "Traceback" not in problem
        assert len(problem) < 20_000, f"{len(problem)}: {problem[:150]} ... {problem[-100:]}"
