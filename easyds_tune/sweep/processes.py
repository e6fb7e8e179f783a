"""What the system says of the processes of this machine, and whose they are.

Every process that a driver starts inherits a mark in its environment: which driver that was. The
mark names a process and its start, so that a process number used again is nobody's.
Linux only; elsewhere nothing is known of any process.
"""

from __future__ import annotations

import os
from pathlib import Path

MARK = "EASYDS_TUNE_DRIVER"
"""The environment variable that holds the mark: <process namespace>:<process>:<its start>."""
PROC = Path("/proc")
IS_SUPPORTED = (PROC / "self" / "ns" / "pid").exists()


def start_of(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where it has ended.

    A dead process that its parent has not looked after yet has ended too.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZXx" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP or a debugger, until it is told to go on."""
    fields = _stat(pid)
    return fields is not None and fields[0] in "Tt"


def children_of(pid: int) -> dict[int, int]:
    """The living children of a process, and when each of them started."""
    children = {child: _stat(child) for child in all_processes()}
    return {
        child: int(fields[19])
        for child, fields in children.items()
        if fields is not None and fields[0] not in "ZXx" and int(fields[1]) == pid
    }


def _stat(pid: int) -> list[str] | None:
    """What the system says of a process behind its name: its state first; None once it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def own_mark() -> str:
    """The mark of this process, for what it starts."""
    return f"{_namespace()}:{os.getpid()}:{start_of(os.getpid())}"


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
    if namespace != str(_namespace()) or not (pid.isdigit() and start.isdigit()):
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


def _namespace() -> int:
    return (PROC / "self" / "ns" / "pid").stat().st_ino
