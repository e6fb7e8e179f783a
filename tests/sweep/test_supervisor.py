"""Real workers that hang, lose a rank or take too much memory are ended; their neighbours live on.

Each worker keeps its heartbeat file itself, as a trial's ranks do.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from easyds_tune.sweep.machine_memory import Memory, machine_memory
from easyds_tune.sweep.processes import MARK, is_stopped, own_mark, resident_bytes
from easyds_tune.sweep.supervisor import Supervisor
from easyds_tune.trial.failure import Failure, put_away_failure, read_failure, write_failure
from tests.sweep.children import Child, child, has_ended, line_of, wait_until

WORKER = """
import json, os, sys, time
from pathlib import Path

folder, trial, rank, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])

def beat():
    now = time.monotonic()
    word = {"pid": os.getpid(), "trial": trial, "rank": rank, "written": now, "due": now + seconds}
    if seconds < 0:
        word |= {"trial": None, "due": None}
    file = folder / "heartbeats" / f"{os.getpid()}.json"
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(word))
    unfinished.rename(file)

beat()
print("here", flush=True)
"""
BUSY = """
while True:
    beat()
    time.sleep(0.1)
"""
RAISES = """
from easyds_tune.trial.failure import Failure, write_failure
sys.stdin.readline()
write_failure(folder / "trials" / trial, Failure("FAILED", "KeyError", "'x'", "Traceback ..."))
time.sleep(600)
"""
COLLECTIVE = """
import datetime, torch
import torch.distributed as dist
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/{trial}.rendezvous", rank=rank, world_size=2,
    timeout=datetime.timedelta(seconds=600),
)
print("joined", flush=True)
for step in range(1_000_000):
    if rank == 1 and sys.stdin in __import__("select").select([sys.stdin], [], [], 0)[0]:
        from easyds_tune.trial.failure import classify, write_failure
        try:
            raise ZeroDivisionError("rank 1 only")
        except ZeroDivisionError as error:
            write_failure(folder / "trials" / trial, classify(error))
        (folder / "heartbeats" / f"{os.getpid()}.json").unlink()
        time.sleep(600)  # an actor that has raised lives on
    dist.all_reduce(torch.ones(4))
    beat()
    time.sleep(0.01)
"""
GROWS = """
held = [bytearray(os.urandom(1) * 2**20 * 200)]
print("grown", flush=True)
sys.stdin.readline()
while len(held) < 60:
    beat()
    held.append(bytearray(b"x" * 2**20 * 100))
    time.sleep(0.1)
time.sleep(600)
"""

pytestmark = pytest.mark.timeout(120)


class Place:
    """A folder with heartbeats and trials, its supervisor, and the workers that run in it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        (folder / "heartbeats").mkdir()
        self.supervisor = self.supervised()
        self.told: list[str] = []

    def supervised(self, **settings: object) -> Supervisor:
        places = (self.folder / "heartbeats", self.folder / "trials")
        self.supervisor = Supervisor(*places, **settings)  # type: ignore[arg-type]
        return self.supervisor

    def worker(
        self, code: str, trial: str, *, rank: int = 0, seconds: float = 60, mark: str = ""
    ) -> Child:
        arguments = (str(self.folder), trial, str(rank), str(seconds))
        started = child(WORKER + code, *arguments, **{MARK: mark or own_mark()})
        process = self._stack.enter_context(started)
        assert line_of(process) == "here"
        return process

    def check_until_ended(self, *processes: Child, within: float) -> float:
        """Check twice a second, as a driver does; the time until all have ended."""
        start = time.monotonic()
        while not all(has_ended(process.pid) for process in processes):
            assert time.monotonic() < start + within, self.told
            self.told += self.supervisor.check()
            time.sleep(0.5)
        return time.monotonic() - start

    def failure(self, trial: str) -> Failure:
        failure = read_failure(self.folder / "trials" / trial)
        assert failure is not None
        return failure

    def heartbeat_files(self) -> list[Path]:
        return list((self.folder / "heartbeats").glob("*.json"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def test_a_worker_that_beats_is_left_alone(place: Place) -> None:
    worker = place.worker(BUSY, "000", seconds=2)
    for _ in range(6):
        assert place.supervisor.check() == []
        time.sleep(0.5)
    assert not has_ended(worker.pid)


def test_a_stopped_worker_is_ended_when_it_is_overdue(place: Place) -> None:
    stopped = place.worker(BUSY, "003", seconds=2)
    busy = place.worker(BUSY, "004", seconds=2)
    os.kill(stopped.pid, signal.SIGSTOP)
    assert place.supervisor.check() == []
    assert place.check_until_ended(stopped, within=6) > 1
    assert not has_ended(busy.pid)
    failure = place.failure("003")
    assert (failure.state, failure.type) == ("FAILED", "Hung")
    assert failure.message.startswith(f"rank 0 (process {stopped.pid}) gave no sign of life for ")
    assert failure.message.endswith("; one was due within 2 s")
    assert place.told == [f"trial 003 was ended: {failure.message}"]
    assert place.supervisor.check() == []
    assert len(place.heartbeat_files()) == 1


def test_a_worker_that_rests_may_be_silent_and_its_end_is_nobodys(place: Place) -> None:
    resting = place.worker("time.sleep(600)", "000", seconds=-1)
    another = place.worker("time.sleep(600)", "000", rank=1, seconds=-1)
    place.supervised(memory=lambda: Memory(99, 100))
    [line] = place.supervisor.check()
    assert line.endswith("no trial begins until there is room")
    another.kill()
    wait_until(lambda: has_ended(another.pid), 5, "its end")
    assert place.supervisor.check() == []
    assert not has_ended(resting.pid)
    assert len(place.heartbeat_files()) == 1


def test_a_worker_that_is_stopped_while_it_rests_is_ended(place: Place) -> None:
    stopped = place.worker("time.sleep(600)", "000", seconds=-1)
    resting = place.worker("time.sleep(600)", "000", seconds=-1)
    place.supervised(stopped_seconds=2.0)
    os.kill(stopped.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(stopped.pid), 5, "the stop")
    assert place.supervisor.check() == []
    os.kill(stopped.pid, signal.SIGCONT)
    wait_until(lambda: not is_stopped(stopped.pid), 5, "the continuation")
    time.sleep(2.1)
    assert place.supervisor.check() == []
    os.kill(stopped.pid, signal.SIGSTOP)
    assert place.check_until_ended(stopped, within=5) > 1.5
    assert not has_ended(resting.pid)
    [line] = place.told
    assert line.startswith(f"process {stopped.pid} was ended: it had been stopped for ")


def test_a_lone_worker_that_dies_is_rays_to_notice(place: Place) -> None:
    worker = place.worker(BUSY, "000")
    worker.kill()
    wait_until(lambda: has_ended(worker.pid), 5, "its end")
    assert place.supervisor.check() == []
    assert place.heartbeat_files() == []
    assert not (place.folder / "trials").exists()


def test_the_other_rank_of_a_killed_one_is_ended(place: Place) -> None:
    ranks = [place.worker(BUSY, "000", rank=rank) for rank in (0, 1)]
    neighbour = place.worker(BUSY, "001")
    ranks[1].kill()
    assert place.check_until_ended(*ranks, within=3) < 1.5
    assert not has_ended(neighbour.pid)
    failure = place.failure("000")
    assert (failure.state, failure.type) == ("FAILED", "WorkerDied")
    assert failure.message == f"rank 1 (process {ranks[1].pid}) was killed or died"


def test_the_failure_that_a_rank_left_is_kept(place: Place) -> None:
    ranks = [place.worker(BUSY, "000"), place.worker(RAISES, "000", rank=1)]
    print("go", file=ranks[1].stdin, flush=True)
    assert place.check_until_ended(*ranks, within=8) < 5
    assert place.failure("000") == Failure("FAILED", "KeyError", "'x'", "Traceback ...")


def test_the_failure_of_an_earlier_attempt_ends_nobody_once_it_is_put_away(place: Place) -> None:
    folder = place.folder / "trials" / "000"
    write_failure(folder, Failure("FAILED", "WorkerDied", "", ""))
    old = time.time() - 60
    os.utime(folder / "failure.json", (old, old))
    put_away_failure(folder)
    worker = place.worker(BUSY, "000")
    assert place.supervisor.check() == []
    assert not has_ended(worker.pid)


@pytest.mark.parametrize("fault", ["raises", "stopped", "killed"])
def test_a_rank_that_waits_in_a_collective_is_ended_with_the_other(
    place: Place, fault: str
) -> None:
    ranks = [place.worker(COLLECTIVE, "000", rank=rank, seconds=4) for rank in (0, 1)]
    for rank in ranks:
        assert line_of(rank) == "joined"
    time.sleep(0.5)
    place.supervised()
    if fault == "raises":
        print("go", file=ranks[1].stdin, flush=True)
    else:
        os.kill(ranks[1].pid, signal.SIGSTOP if fault == "stopped" else signal.SIGKILL)
    # By its failure after 2 s, by its heartbeat after 4 s, by its death at once. Who has raised
    # is Ray's to end.
    took = place.check_until_ended(*ranks[: 1 if fault == "raises" else 2], within=8)
    assert took < {"raises": 4, "stopped": 6, "killed": 2}[fault]
    if fault == "raises":
        failure = place.failure("000")
        assert (failure.type, failure.message) == ("ZeroDivisionError", "rank 1 only")
    elif fault == "stopped":
        assert place.failure("000").type == "Hung"


def test_a_process_that_is_not_this_drivers_is_never_killed(place: Place) -> None:
    """The number of a worker that has ended may be in use again."""
    stranger = place.worker("time.sleep(600)", "000", seconds=0, mark="1:2:3")
    assert place.supervisor.check() == []
    assert place.heartbeat_files() == []
    assert not has_ended(stranger.pid)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "trial": ""}'])
def test_a_heartbeat_file_that_says_nothing_is_passed_over(place: Place, text: str) -> None:
    (place.folder / "heartbeats" / "1.json").write_text(text, encoding="utf-8")
    assert place.supervisor.check() == []


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_wall_clock_that_is_set_neither_ends_nor_spares_a_worker(
    place: Place, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    alive = place.worker(BUSY, "000")
    hangs = place.worker("time.sleep(600)", "001", seconds=0.5)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jump)
    place.check_until_ended(hangs, within=10)
    assert not has_ended(alive.pid)


def test_after_a_sleep_of_the_machine_workers_get_their_time_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.worker("time.sleep(600)", "000", seconds=60)
    clock = time.monotonic
    asleep = 3600.0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + asleep)
    assert place.supervisor.check() == []
    asleep += 25
    assert place.supervisor.check() == []
    asleep += 25
    assert place.supervisor.check() == []
    asleep += 25
    [line] = place.supervisor.check()
    assert "gave no sign of life" in line
    wait_until(lambda: has_ended(worker.pid), 5, "its end")


def test_the_greediest_worker_is_ended_when_memory_runs_out(place: Place) -> None:
    greedy = place.worker(GROWS, "007")
    innocent = place.worker(BUSY, "008")
    assert line_of(greedy) == "grown"
    memory = machine_memory()
    assert memory is not None
    limit = memory.share + 2**29 / memory.total  # half a GiB above what is in use
    place.supervised(memory_limit=limit)
    assert place.supervisor.check() == []
    print("go", file=greedy.stdin, flush=True)
    place.check_until_ended(greedy, within=30)
    for _ in range(4):
        assert place.supervisor.check() == []
        time.sleep(0.5)
    assert not has_ended(innocent.pid)
    failure = place.failure("007")
    assert (failure.state, failure.type) == ("OUT_OF_MEMORY", "HostMemory")
    assert f"over the limit of {limit:.0%}, and rank 0 (process {greedy.pid}) held the most" in (
        failure.message
    )


def test_memory_that_others_take_is_held_against_no_worker(place: Place) -> None:
    worker = place.worker(BUSY, "000")
    total = 2**36  # 5 % of it are 3.4 GB
    memory = [Memory(int(0.97 * total), total)]
    supervisor = place.supervised(memory=lambda: memory[0])
    [line] = supervisor.check()
    assert line == (
        "62.1 of the machine's 64.0 GiB of memory were in use, over the limit of 95%, and the "
        "sweep's workers hold 0.0 GiB of that: no trial begins until there is room"
    )
    assert supervisor.is_memory_short
    assert supervisor.check() == []  # said once
    assert not has_ended(worker.pid)
    assert not (place.folder / "trials").exists()
    memory[0] = Memory(total // 2, total)
    assert supervisor.check() == []
    assert not supervisor.is_memory_short


def test_many_small_workers_that_fill_the_memory_together_are_ended(place: Place) -> None:
    worker = place.worker(BUSY, "000")
    used = 2 * resident_bytes(worker.pid) - 2**20
    place.supervised(memory=lambda: Memory(used, 100 * used), memory_limit=0.001)
    [line] = place.supervisor.check()
    assert "held the most of all workers" in line
    wait_until(lambda: has_ended(worker.pid), 5, "its end")


def test_one_worker_at_a_time_is_ended_and_the_next_once_memory_fell_and_rose(place: Place) -> None:
    workers = [place.worker(BUSY, f"00{number}") for number in range(3)]
    full, roomy = Memory(97, 100), Memory(80, 100)
    memory = [full]
    supervisor = place.supervised(memory=lambda: memory[0])

    def left() -> int:
        return sum(not has_ended(worker.pid) for worker in workers)

    assert len(supervisor.check()) == 1
    wait_until(lambda: left() == 2, 5, "the end of the first")
    assert supervisor.check() == []  # its memory may not be back yet
    memory[0] = roomy
    assert supervisor.check() == []
    memory[0] = full
    assert len(supervisor.check()) == 1
    wait_until(lambda: left() == 1, 5, "the end of the second")
