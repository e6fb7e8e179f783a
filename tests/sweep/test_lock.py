"""One driver a sweep, with real processes: refused, taken over, never inherited."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from easyds_tune.errors import SpecError
from easyds_tune.sweep.lock import FILE, holder, lock
from tests.sweep.children import child, line_of

HOLD = """
import subprocess, sys
from pathlib import Path
from easyds_tune.sweep.lock import lock
with lock(Path(sys.argv[1])) as note:
    sleeper = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=2)
    print(sleeper.pid, flush=True)
    sys.stdin.readline()
    sleeper.kill()
"""


def test_a_free_lock_is_taken_and_let_go(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    for _ in range(2):
        with lock(tmp_path) as note:
            assert note is None
            who = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
            assert (who["pid"], who["host"]) == (os.getpid(), socket.gethostname())
            assert holder(tmp_path) is not None
        assert (tmp_path / FILE).read_text(encoding="utf-8") == ""
        assert holder(tmp_path) is None


def test_a_second_driver_is_refused_and_told_who_runs_the_sweep(tmp_path: Path) -> None:
    with child(HOLD, tmp_path) as process:
        line_of(process)
        who = f"process {process.pid} on {socket.gethostname()}, started 2"
        assert str(holder(tmp_path)).startswith(who)
        with pytest.raises(SpecError) as refused, lock(tmp_path):
            pass
        [problem] = refused.value.problems
        assert problem.startswith(f"name: {tmp_path} is being run by {who}")
        process.communicate("end\n")
        with lock(tmp_path) as note:
            assert note is None


def test_the_lock_of_a_killed_driver_is_taken_over_though_its_child_lives(tmp_path: Path) -> None:
    with child(HOLD, tmp_path) as process:
        sleeper = int(line_of(process))
        process.kill()
        process.wait()
    try:
        os.kill(sleeper, 0)  # it is still there
        assert holder(tmp_path) is None
        with lock(tmp_path) as note:
            assert note is not None
            who = f"the last driver, process {process.pid} on {socket.gethostname()}, started 2"
            assert note.startswith(who)
            assert note.endswith("died without closing the sweep; its lock was taken over")
        with lock(tmp_path) as note:
            assert note is None
    finally:
        os.kill(sleeper, 9)


def test_an_error_in_the_block_is_no_death(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        raise ZeroDivisionError
    with lock(tmp_path) as note:
        assert note is None


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": 1}', '{"pid":1,"host":"a","started":"x"}'])
def test_a_lock_file_that_says_nothing_is_no_obstacle(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with lock(tmp_path) as note:
        assert str(note).startswith("the last driver, another process, died")


def test_a_glance_at_the_lock_keeps_nobody_out(tmp_path: Path) -> None:
    glances = """
import sys, time
from pathlib import Path
from easyds_tune.sweep.lock import holder
print("looking", flush=True)
while True:
    holder(Path(sys.argv[1]))
"""
    with lock(tmp_path):
        pass
    with child(glances, tmp_path) as process:
        line_of(process)
        for _ in range(50):
            with lock(tmp_path):
                pass


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("a letter", encoding="utf-8")
    (tmp_path / FILE).symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic links"), lock(tmp_path):
        pass
    assert theirs.read_text(encoding="utf-8") == "a letter"
