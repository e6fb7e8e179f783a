"""What a killed driver leaves is gone before the next sweep; what lives is left alone."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest

from easyds_tune.sweep import orphans
from easyds_tune.sweep.orphans import (
    OWNER,
    end_orphans,
    find_orphans,
    private_folder,
)
from easyds_tune.sweep.processes import (
    MARK,
    all_processes,
    mark_of,
    own_mark,
)
from tests.sweep.children import Child, child, has_ended, line_of, wait_until

SLEEP = "import time; print('here', flush=True); time.sleep(600)"
DRIVER = """
import os, subprocess, sys, time
from easyds_tune.sweep.processes import MARK, own_mark
os.environ[MARK] = own_mark()
nested = "import subprocess; subprocess.run(['sleep', '600'])"
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", nested])
print("here", flush=True)
time.sleep(600)
"""
RAY_DRIVER = """
import os, time, ray
from easyds_tune.spec.resources import ResourcesSpec
from easyds_tune.sweep.cluster import local_ray

@ray.remote(num_cpus=1)
class Worker:
    def pid(self):
        return os.getpid()

with local_ray(ResourcesSpec(gpus_per_trial=0, max_concurrent=2)):
    workers = [Worker.remote(), Worker.remote()]
    print(*ray.get([worker.pid.remote() for worker in workers]), flush=True)
    time.sleep(600)
"""


def marked_by(driver: Child) -> list[int]:
    """The processes that carry the mark of a driver, itself apart."""
    return [pid for pid in all_processes() if f":{driver.pid}:" in (mark_of(pid) or "")]


def test_only_what_a_dead_driver_started_is_ended() -> None:
    with child(DRIVER) as dead, child(DRIVER) as alive, child(SLEEP) as unmarked:
        for process in (dead, alive, unmarked):
            line_of(process)
        wait_until(lambda: len(marked_by(dead)) == len(marked_by(alive)) == 4, 20, "their children")
        mine = marked_by(dead)
        os.kill(mine[0], signal.SIGSTOP)
        assert not find_orphans() & {*mine, *marked_by(alive)}
        dead.kill()  # and nobody has waited for it: a zombie is no driver
        wait_until(lambda: has_ended(dead.pid), 5, "the driver's end")
        assert end_orphans() >= 4
        assert [pid for pid in mine if not has_ended(pid)] == []
        assert end_orphans() == 0
        assert len(marked_by(alive)) == 4
        assert not has_ended(unmarked.pid)
        theirs = marked_by(alive)
        alive.kill()
        alive.wait()
        assert end_orphans() >= 4
        assert all(has_ended(pid) for pid in theirs)


def test_a_process_is_not_its_own_orphan() -> None:
    code = "from easyds_tune.sweep.orphans import end_orphans; print(end_orphans(), 'ended')"
    namespace = own_mark().partition(":")[0]
    with child(code, **{MARK: f"{namespace}:{os.getpid()}:1"}) as process:
        assert line_of(process).endswith("ended")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_of_a_killed_drivers_ray_holds_a_slot() -> None:
    with child(RAY_DRIVER) as driver:
        workers = [int(pid) for pid in line_of(driver).split()]
        assert len(workers) == 2
        processes = marked_by(driver)
        names = [Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() for pid in processes]
        assert {"raylet", "gcs_server"} < set(names)
        assert set(workers) < set(processes)
        os.kill(workers[0], signal.SIGSTOP)  # it cannot notice that its driver is gone
        driver.kill()
        wait_until(lambda: has_ended(driver.pid), 5, "the driver's end")
        start = time.monotonic()
        end_orphans()
        assert time.monotonic() - start < 5
        assert [pid for pid in processes if not has_ended(pid)] == []


def test_a_driver_ends_what_it_started_itself() -> None:
    code = """
import os, subprocess, sys, time
from easyds_tune.sweep.orphans import end_own_processes
from easyds_tune.sweep.processes import MARK, children_of, own_mark
os.environ[MARK] = own_mark()
# Its child has no mark, as while it starts another program.
parent = "import subprocess; subprocess.run(['env', '-i', 'sleep', '600'])"
sleeper = subprocess.Popen([sys.executable, "-c", parent])
while not children_of({sleeper.pid}):
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.readline()
print(end_own_processes(), sleeper.wait(), flush=True)
"""
    with child(DRIVER) as other, child(code) as driver:
        assert line_of(other) == line_of(driver).replace("ready", "here")
        wait_until(lambda: len(marked_by(other)) == 4, 20, "its children")
        wait_until(lambda: len(marked_by(driver)) == 1, 20, "its child")
        print("go", file=driver.stdin, flush=True)
        assert line_of(driver) == "2 -9"
        assert len(marked_by(other)) == 4
        other.kill()
        other.wait()
        end_orphans()


def test_a_private_folder_says_whose_it_is_until_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever stops its removal half-way, the next start knows it."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as parent:
        monkeypatch.setattr(tempfile, "tempdir", parent)
        with private_folder() as folder:
            (folder / "deep").mkdir()
            with monkeypatch.context() as patch:
                # As where a process still writes into it.
                patch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
                orphans._remove(folder)
            assert (folder / OWNER).read_text(encoding="utf-8") == own_mark()
            orphans._remove(folder)
            assert not folder.exists()


def test_a_private_folder_is_ours_alone_and_leaves_nothing() -> None:
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "deep").mkdir()
    assert not folder.exists()


def test_the_folder_of_a_dead_driver_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Temporary files of others must not be in it, nor its path be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as parent:
        monkeypatch.setattr(tempfile, "tempdir", parent)
        hold = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from easyds_tune.sweep.orphans import private_folder
with private_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""
        with child(hold, parent) as dead, child(hold, parent) as alive:
            left, kept = Path(line_of(dead)), Path(line_of(alive))
            assert left.parent == kept.parent == Path(parent)
            dead.kill()
            dead.wait()
            foreign = Path(parent, "eds-unmarked")
            foreign.mkdir()
            with private_folder():
                assert not left.exists()
                assert (kept / OWNER).is_file()
                assert foreign.is_dir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("deep" * 10)))
        with private_folder() as folder:
            assert folder.parent == Path("/tmp")
