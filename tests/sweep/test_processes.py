"""Whose a process is: the mark that it inherits, and whether who left it there still lives."""

from __future__ import annotations

import os
from pathlib import Path

from easyds_tune.sweep.processes import (
    MARK,
    children_of,
    has_dead_driver,
    mark_of,
    own_mark,
    resident_bytes,
    start_of,
)
from tests.sweep.children import child, has_ended, line_of, wait_until

SLEEP = "import time; print('here', flush=True); time.sleep(600)"


def test_the_mark_names_a_process_and_its_start() -> None:
    assert not has_dead_driver(own_mark())
    namespace, pid, start = own_mark().split(":")
    assert (int(pid), int(start)) == (os.getpid(), start_of(os.getpid()))
    # The number is in use again, by a process that started later.
    assert has_dead_driver(f"{namespace}:{pid}:{int(start) - 1}")
    # A container's processes are numbered anew: this one may be alive in its own.
    assert not has_dead_driver(f"{int(namespace) + 1}:{pid}:{int(start) - 1}")
    for nonsense in ("", "1", f"{namespace}::", f"{namespace}:1", f"{namespace}:x:y"):
        assert not has_dead_driver(nonsense)


def test_a_dead_process_is_dead_before_its_parent_has_noticed() -> None:
    with child(SLEEP, **{MARK: own_mark()}) as process:
        line_of(process)
        assert mark_of(process.pid) == own_mark()
        process.kill()
        wait_until(lambda: has_ended(process.pid), 5, "its end")
        assert Path(f"/proc/{process.pid}").exists()  # a zombie
        assert mark_of(process.pid) is None


def test_the_memory_of_a_process_is_what_it_holds() -> None:
    code = "held = bytearray(b'x' * 2**20 * 100); print('here', flush=True); input()"
    with child(code) as process:
        line_of(process)
        assert 100 * 2**20 < resident_bytes(process.pid) < 250 * 2**20
        process.kill()
        wait_until(lambda: has_ended(process.pid), 5, "its end")
        assert resident_bytes(process.pid) == 0


def test_children_are_listed_until_they_end() -> None:
    with child(SLEEP) as process:
        line_of(process)
        assert children_of({os.getpid()})[process.pid] == start_of(process.pid)
        process.kill()
        wait_until(lambda: process.pid not in children_of({os.getpid()}), 10, "its end")
