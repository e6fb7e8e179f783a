"""How full the memory is that this process may use: the machine's, or its control group's.

Linux only; elsewhere nothing is known.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/proc/self/cgroup")
MOUNTS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes in use that cannot be had back by forgetting cached files, and bytes there are."""

    used: int
    total: int

    @property
    def share(self) -> float:
        """The part in use, 0 to 1."""
        return self.used / self.total


def machine_memory(
    meminfo: Path = MEMINFO, cgroup: Path = CGROUP, mounts: Path = MOUNTS
) -> Memory | None:
    """The fullest of the machine and of the groups with a limit that this process is in.

    A container's limit is one of those. None where the system does not say.
    """
    try:
        numbers = _numbers(meminfo)
        total = numbers["MemTotal:"] * 1024
        machine = Memory(total - numbers["MemAvailable:"] * 1024, total)
    except (OSError, KeyError, ValueError):
        return None
    groups = [_limited(folder) for folder in _group_folders(cgroup, mounts)]
    limited = [group for group in groups if group is not None and group.total < total]
    return max([machine, *limited], key=lambda memory: memory.share)


def _group_folders(cgroup: Path, mounts: Path) -> list[Path]:
    """Folders of this process's groups, up to the root; a container may see the root alone."""
    found = []
    with suppress(OSError):
        for line in cgroup.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = mounts / "memory" if controllers else mounts
            folder = root / path.lstrip("/")
            found += [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    return found


def _limited(folder: Path) -> Memory | None:
    """A group's memory, version 2 or 1; None where it has no limit."""
    for limit, usage, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        try:
            total = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            stat = _numbers(folder / "memory.stat")
            # Cached files are given back when room is needed.
            used -= stat[f"{prefix}inactive_file"] + stat[f"{prefix}active_file"]
            return Memory(max(used, 0), total)
        except (OSError, KeyError, ValueError):  # "max" is no limit
            continue
    return None


def _numbers(path: Path) -> dict[str, int]:
    """First word -> number of each line."""
    words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {parts[0]: int(parts[1]) for parts in words if len(parts) > 1}
