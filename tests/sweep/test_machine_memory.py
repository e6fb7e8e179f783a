"""How full the memory is: the machine's own, and control groups laid out as the kernel does."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyds_tune.sweep.machine_memory import Memory, machine_memory

GIB = 2**30


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """A machine of 16 GiB, 4 of them in use."""
    path = tmp_path / "meminfo"
    path.write_text(
        f"MemTotal: {16 * 2**20} kB\nMemFree: {2**20} kB\nMemAvailable: {12 * 2**20} kB\n"
        "HugePages_Total: 0\n",
        encoding="utf-8",
    )
    return path


def group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n", encoding="utf-8")


def version_2(limit: object, used: int, cached: int) -> dict[str, object]:
    half = cached // 2
    stat = f"anon {used - cached}\ninactive_file {half}\nactive_file {cached - half}"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def version_1(limit: int, used: int, cached: int) -> dict[str, object]:
    stat = f"inactive_file 7\ntotal_inactive_file {cached}\ntotal_active_file 0"
    return {
        "memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat,
    }  # fmt: skip


def test_this_machine_has_memory_and_uses_some() -> None:
    memory = machine_memory()
    assert memory is not None
    assert 0.001 < memory.share < 1
    assert memory.total > 2**28


def test_without_a_limited_group_the_machine_counts(tmp_path: Path, meminfo: Path) -> None:
    cgroup = tmp_path / "cgroup"
    for text in ("", "0::/nowhere\n", "0::/user\n", "4:memory:/jobs\n3:cpu:/\n"):
        cgroup.write_text(text, encoding="utf-8")
        group(tmp_path / "fs" / "user", version_2("max", 15 * GIB, 0))
        group(tmp_path / "fs" / "memory" / "jobs", version_1(2**63 - 4096, 15 * GIB, 0))
        memory = machine_memory(meminfo, cgroup, tmp_path / "fs")
        assert memory == Memory(used=4 * GIB, total=16 * GIB)


def test_the_limit_of_an_outer_group_counts_without_cached_files(
    tmp_path: Path, meminfo: Path
) -> None:
    (tmp_path / "cgroup").write_text("0::/pod/job\n", encoding="utf-8")
    group(tmp_path / "fs" / "pod" / "job", version_2("max", 6 * GIB, 3 * GIB))
    group(tmp_path / "fs" / "pod", version_2(8 * GIB, 7 * GIB, 3 * GIB))
    memory = machine_memory(meminfo, tmp_path / "cgroup", tmp_path / "fs")
    assert memory == Memory(used=4 * GIB, total=8 * GIB)


def test_a_container_sees_its_group_at_the_root(tmp_path: Path, meminfo: Path) -> None:
    (tmp_path / "cgroup").write_text("5:cpu,memory:/docker/abc\n0::/\n", encoding="utf-8")
    group(tmp_path / "fs" / "memory", version_1(2 * GIB, 2 * GIB, GIB // 2))
    memory = machine_memory(meminfo, tmp_path / "cgroup", tmp_path / "fs")
    assert memory == Memory(used=3 * GIB // 2, total=2 * GIB)


def test_the_fuller_of_machine_and_group_counts(tmp_path: Path, meminfo: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/pod\n", encoding="utf-8")
    group(tmp_path / "fs" / "pod", version_2(8 * GIB, GIB, 0))
    memory = machine_memory(meminfo, tmp_path / "cgroup", tmp_path / "fs")
    assert memory == Memory(used=4 * GIB, total=16 * GIB)


def test_a_system_that_does_not_say_is_unknown(tmp_path: Path) -> None:
    assert machine_memory(tmp_path / "nothing", tmp_path / "cgroup", tmp_path) is None
