"""What the system says of the processes of this machine, and whose they are.

Every process that a driver starts inherits a mark in its environment: which driver that was. The
mark names a process and its start, so that a process number used again is nobody's.
Linux only; elsewhere nothing is known of any process.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from easyds_tune.drafts import IS_SUPPORTED, PROC, process_namespace, start_of, stat_of

MARK = "EASYDS_TUNE_DRIVER"
"""The environment variable that holds the mark: <process namespace>:<process>:<its start>."""

__all__ = [
    "IS_SUPPORTED", "MARK", "all_processes", "children_of", "has_dead_driver", "is_stopped",
    "mark_of", "own_mark", "resident_bytes", "start_of",
]  # fmt: skip


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP or a debugger, until it is told to go on."""
    fields = stat_of(pid)
    return fields is not None and fields[0] in "Tt"


def children_of(parents: Collection[int]) -> dict[int, int]:
    """The living children of some processes, and when each of them started."""
    children = {child: stat_of(child) for child in all_processes()}
    return {
        child: int(fields[19])
        for child, fields in children.items()
        if fields is not None and fields[0] not in "ZXx" and int(fields[1]) in parents
    }


def own_mark() -> str:
    """The mark of this process, for what it starts."""
    return f"{process_namespace()}:{os.getpid()}:{start_of(os.getpid())}"


def mark_of(pid: int) -> str | None:
    """The mark that a process carries; None where it has none, has ended or is another user's."""
    folder = PROC / str(pid)
    try:
        if folder.stat().st_uid != os.geteuid():
            return None
        variables = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    start = f"{MARK}=".encode()
    found = [line.removeprefix(start) for line in variables if line.startswith(start)]
    return found[-1].decode(errors="replace") if found else None


def has_dead_driver(mark: str) -> bool:
    """Whether a mark names a process that has ended.

    One of another namespace, a container's say, has numbers of its own: it may well be alive.
    """
    namespace, _, driver = mark.partition(":")
    pid, _, start = driver.partition(":")
    if namespace != str(process_namespace()) or not (pid.isdigit() and start.isdigit()):
        return False
    return start_of(int(pid)) != int(start)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 where it has ended."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def all_processes() -> list[int]:
    """Every process that can be seen."""
    return [int(folder.name) for folder in PROC.glob("[0-9]*")]
