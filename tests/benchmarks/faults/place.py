"""The folder in which one fault is provoked, and every process that is started for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.sweeps import MARK, is_zombie, marked_processes

REPOSITORY = Path(__file__).resolve().parents[3]
INJECT = Path(__file__).parent / "inject"
POLL_SECONDS = 0.02
RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray's that hold no slot."""


class Unseen(Exception):
    """What a fault's script waited for did not happen: the row fails, and says so."""


@dataclass(frozen=True)
class Outcome:
    """What was seen of one fault, and whether it is what must happen.

    recovery_seconds: from the fault, or from the command that goes on, to the next sign of work.
    """

    passed: bool
    seen: str
    recovery_seconds: float | None = None


@dataclass
class Running:
    """A command that was started, and the mark that all its processes inherit."""

    process: subprocess.Popen[str]
    mark: str
    output: Path
    started: float = field(default_factory=time.time)

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit code; raises Unseen where it does not end in time."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise Unseen(f"the command did not end within {seconds:g} s") from error

    def kill(self) -> float:
        """SIGKILL to the process alone, as the system's own killer does; when, in unix seconds."""
        when = time.time()
        self.process.kill()
        self.process.wait()
        return when

    def others(self, starting_with: str = "") -> list[int]:
        """Its living processes besides the first, whose command line begins so."""
        return [
            pid
            for pid in marked_processes(self.mark)
            if pid != self.process.pid and command_line(pid).startswith(starting_with)
        ]

    def workers(self) -> list[int]:
        """The processes that train: Ray names them after their actor or function."""
        return [pid for pid in self.others("ray::") if not command_line(pid).startswith(RAYS_OWN)]

    def wait_for(self, happened: Callable[[], object], seconds: float, what: str) -> None:
        """Wait while it runs; raises Unseen where it ends first, or too much time passes."""
        end = time.monotonic() + seconds
        while not happened():
            if self.process.poll() is not None and not happened():
                raise Unseen(f"ended with {self.process.returncode} before {what}: {tail(self)}")
            if time.monotonic() > end:
                raise Unseen(f"waited {seconds:g} s for {what}")
            time.sleep(POLL_SECONDS)


@dataclass
class Place:
    """A folder of its own; `close` ends everything that was started in it."""

    folder: Path
    running: list[Running] = field(default_factory=list)

    def start(self, *command: str, **environment: str) -> Running:
        """Run a command here, with one thread a process and no GPU."""
        mark = uuid.uuid4().hex
        output = self.folder / f"output-{len(self.running)}.txt"
        paths = [str(INJECT), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        with output.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=os.environ
                | {
                    MARK: mark,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "OMP_NUM_THREADS": "1",
                    "CUDA_VISIBLE_DEVICES": "",
                    "COLUMNS": "160",
                }
                | environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        running = Running(process, mark, output)
        self.running.append(running)
        return running

    def close(self) -> None:
        """Kill what is left, the first processes first."""
        for running in self.running:
            with suppress(ProcessLookupError):
                if running.process.poll() is None:
                    running.process.kill()
                    running.process.wait()
            end_all(running.mark)


def leave_when_told() -> None:
    """Have SIGTERM and SIGINT end this process in order, and with it what it has started."""

    def leave(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)


def end_all(mark: str) -> None:
    """Kill every process that carries a mark, until there is none."""
    for _ in range(50):
        left = marked_processes(mark)
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


@contextmanager
def place_in(folder: Path) -> Iterator[Place]:
    """A new folder; nothing that was started in it outlives the block."""
    folder.mkdir(parents=True)
    place = Place(folder)
    try:
        yield place
    finally:
        place.close()


def command_line(pid: int) -> str:
    """How a process calls itself; empty where it is gone or dead already."""
    folder = Path("/proc") / str(pid)
    try:
        if is_zombie(folder):
            return ""
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def tail(running: Running, lines: int = 3) -> str:
    """The end of what a command printed, on one line."""
    return " | ".join(line.strip() for line in running.text.splitlines()[-lines:] if line.strip())
