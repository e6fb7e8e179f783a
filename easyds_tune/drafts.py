"""Temporary files and folders that name their process, so that those of dead ones can be deleted.

A draft stands beside what it becomes, as `.best.json.<machine>-<namespace>-<process>-<start>.tmp`.
Process numbers are used again, so the name holds when the process started. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
IS_SUPPORTED = (PROC / "self" / "ns" / "pid").exists()
LONGEST_NAME = 180
"""Bytes of a name that its draft repeats: with the owner it stays within the system's 255."""
_OWNED = re.compile(r"\.([0-9a-f]{8}-\d+)-(\d+)-(\d+)(?:-\w+)?\.tmp")


def draft_of(path: Path) -> Path:
    """Where this process writes what will become `path`."""
    return path.with_name(f"{_start_of_name(path)}.{_place()}-{os.getpid()}-{_own_start()}.tmp")


def draft_folder(path: Path) -> Path:
    """Make an empty draft folder of `path` for this user alone; delete those of dead processes.

    Raises OSError where it cannot be made.
    """
    remove_dead_drafts(path)
    prefix = draft_of(path).name.removesuffix(".tmp")
    return Path(tempfile.mkdtemp(prefix=f"{prefix}-", suffix=".tmp", dir=path.parent))


def remove_dead_drafts(path: Path) -> None:
    """Delete the drafts of `path` whose process has ended.

    Those of living processes, of other machines and of other containers stay.
    """
    if not IS_SUPPORTED:
        return
    start, place = _start_of_name(path), _place()
    with suppress(OSError):
        for found in list(path.parent.iterdir()):
            owner = _OWNED.fullmatch(found.name.removeprefix(start))
            if not found.name.startswith(start) or owner is None or owner[1] != place:
                continue
            if start_of(int(owner[2])) != int(owner[3]):
                _remove(found)


def start_of(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where it has ended.

    A dead process that its parent has not looked after yet has ended too.
    """
    fields = stat_of(pid)
    return None if fields is None or fields[0] in "ZXx" else int(fields[19])


def stat_of(pid: int) -> list[str] | None:
    """What the system says of a process behind its name: its state first; None once it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def process_namespace() -> int:
    """Within which process numbers have a meaning; a container has its own."""
    return (PROC / "self" / "ns" / "pid").stat().st_ino


def _own_start() -> int:
    return (start_of(os.getpid()) or 0) if IS_SUPPORTED else 0


def _place() -> str:
    """The machine and the namespace of this process."""
    namespace = process_namespace() if IS_SUPPORTED else 0
    return f"{zlib.crc32(socket.gethostname().encode()):08x}-{namespace}"


def _start_of_name(path: Path) -> str:
    return "." + os.fsdecode(os.fsencode(path.name)[:LONGEST_NAME])


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
