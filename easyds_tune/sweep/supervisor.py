"""Ends workers that hang, that have lost a rank, or that take the machine's last memory.

It stands in the driver, outside the workers: a rank that waits in a collective for one that is
dead or stopped cannot help itself. Each worker process keeps a heartbeat file, `*.json` with
{"pid", "trial", "rank", "written", "due"}: its process, what it runs, when it wrote the file and by
when it will have written it again, both by the machine's monotonic clock, so that nobody who sets
the wall clock ends a worker. trial and due are null while it rests.
Linux only; elsewhere it sees nothing and does nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from easyds_tune.sweep.machine_memory import Memory, machine_memory
from easyds_tune.sweep.processes import (
    IS_SUPPORTED,
    is_stopped,
    mark_of,
    own_mark,
    resident_bytes,
    start_of,
)
from easyds_tune.trial.failure import FILE as FAILURE
from easyds_tune.trial.failure import Failure, write_failure

GAP_SECONDS = 30.0
"""So long without a check, and more than the workers was stopped: a closed lid, a Ctrl-Z."""
FAREWELL_SECONDS = 2.0
"""A rank that has failed is done by then; what still runs of its trial waits in vain."""
RELIEF_SECONDS = 5.0
"""A killed worker's memory is back by then; if that was not enough, the next one goes."""
LEAST_SHARE = 0.05
"""A worker that holds less of the machine's memory is not who fills it, ..."""
COMMON_SHARE = 0.5
"""... unless the workers together hold this much of what is in use."""
QUIET_SECONDS = 60.0
"""That memory is short is said again after this time at the earliest."""
GIB = 2**30


@dataclass(frozen=True)
class Heartbeat:
    """The newest sign of life of one rank; times in seconds of the monotonic clock."""

    file: Path
    pid: int
    trial: str | None
    rank: int
    written: float
    due: float
    is_alive: bool
    """Whether the process is there, and one of this driver's: numbers are used again."""

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid})"


class Supervisor:
    """Looks after the workers of one driver; ask it to `check` about twice a second.

    heartbeats: folder of the heartbeat files, made for this driver alone.
    trials: the folder of the trials' folders, where it leaves a failure before it kills. A failure
        found there is of the trial's present attempt; those of earlier ones have been put away.
    memory_limit: share of the machine's memory, 0 to 1; above it, the worker that holds the most
        is killed, where it is the workers who fill the memory. memory: tells how full it is.
    stopped_seconds: so long may a worker that rests be stopped, as by SIGSTOP.
    """

    def __init__(
        self,
        heartbeats: Path,
        trials: Path,
        memory_limit: float = 0.95,
        memory: Callable[[], Memory | None] = machine_memory,
        stopped_seconds: float = 300.0,
    ) -> None:
        self._heartbeats = heartbeats
        self._trials = trials
        self._memory_limit = memory_limit
        self._memory = memory
        self._checked = self._awake_since = time.monotonic()
        self._stopped_seconds = stopped_seconds
        self._stopped: dict[int, float] = {}
        self._pids: dict[str, int] = {}
        self._failed: dict[tuple[str, int], float] = {}
        self._relief_due = self._said_until = 0.0
        self.is_memory_short = False
        """Whether more memory was in use at the last check than the limit allows."""

    def check(self) -> list[str]:
        """Kill what has to be killed; returns lines on what was, and on memory that is short."""
        if not IS_SUPPORTED:
            return []
        now = time.monotonic()
        if now - self._checked > GAP_SECONDS:
            self._awake_since = now
        self._checked = now
        trials: dict[str, list[Heartbeat]] = {}
        resting = []
        for beat in self._read_heartbeats():
            if beat.trial is None:
                resting.append(beat)
            else:
                trials.setdefault(beat.trial, []).append(beat)
        told = self._end_stopped(resting)
        for trial, ranks in trials.items():
            failure = self._lost_rank(trial, ranks) or self._hung_rank(ranks, now)
            if failure is not None:
                told.append(self._end(trial, ranks, failure))
        memory = self._memory()
        self.is_memory_short = memory is not None and memory.share > self._memory_limit
        if memory is None or not self.is_memory_short:
            self._relief_due = 0.0
        elif not told and time.monotonic() >= self._relief_due:
            told += self._relieve(memory, trials, resting)
        return told

    def pid_of(self, trial: str) -> int | None:
        """The process that runs a trial, or did last; None where none has said so."""
        self._read_heartbeats()
        return self._pids.get(trial)

    def _read_heartbeats(self) -> list[Heartbeat]:
        """The heartbeats of all workers. A file whose process has ended is removed when read."""
        mark, found = own_mark(), []
        for file in sorted(self._heartbeats.glob("*.json")):
            try:
                raw = json.loads(file.read_text(encoding="utf-8"))
                pid, rank, trial = int(raw["pid"]), int(raw["rank"]), raw["trial"]
                due = float(raw["due"] or 0)
                written = float(raw["written"])
            except (OSError, ValueError, KeyError, TypeError):  # being removed, or none of ours
                continue
            if trial is not None:
                self._pids[str(trial)] = pid
            is_alive = start_of(pid) is not None and mark_of(pid) == mark
            if not is_alive:
                file.unlink(missing_ok=True)
            found.append(
                Heartbeat(
                    file, pid, None if trial is None else str(trial), rank, written, due, is_alive
                )
            )
        return found

    def _lost_rank(self, trial: str, ranks: list[Heartbeat]) -> Failure | None:
        """Why the living ranks of a trial wait in vain: one has died, or has failed."""
        if not any(beat.is_alive for beat in ranks):
            return None
        if gone := [beat for beat in ranks if not beat.is_alive]:
            return Failure("FAILED", "WorkerDied", f"{gone[0]} was killed or died", "")
        with suppress(FileNotFoundError):
            written = (self._trials / trial / FAILURE).stat().st_mtime_ns
            now = time.monotonic()
            if now - self._failed.setdefault((trial, written), now) > FAREWELL_SECONDS:
                return Failure("FAILED", "WorkerDied", "one of its ranks failed", "")
        return None

    def _hung_rank(self, ranks: list[Heartbeat], now: float) -> Failure | None:
        """That a rank has given no sign of life in the time it had."""
        for beat in ranks:
            allowed = beat.due - beat.written
            # What was asleep with us gets its time anew.
            if beat.is_alive and now > max(beat.due, self._awake_since + allowed):
                message = (
                    f"{beat} gave no sign of life for {now - beat.written:.0f} s; "
                    f"one was due within {allowed:.0f} s"
                )
                return Failure("FAILED", "Hung", message, "")
        return None

    def _end_stopped(self, resting: list[Heartbeat]) -> list[str]:
        """Kill workers that were stopped while they rested: they will never hear of more work."""
        now = time.monotonic()
        stopped = {beat.pid for beat in resting if beat.is_alive and is_stopped(beat.pid)}
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        told = []
        for pid, since in self._stopped.items():
            if now - since > self._stopped_seconds:
                _kill(pid)
                told.append(f"process {pid} was ended: it had been stopped for {now - since:.0f} s")
        return told

    def _relieve(
        self, memory: Memory, trials: dict[str, list[Heartbeat]], resting: list[Heartbeat]
    ) -> list[str]:
        """End the trial of the worker that holds the most memory, or say that none is to blame."""
        held = {
            beat: resident_bytes(beat.pid)
            for ranks in trials.values()
            for beat in ranks
            if beat.is_alive
        }
        idle = sum(resident_bytes(beat.pid) for beat in resting if beat.is_alive)
        used = (
            f"{memory.used / GIB:.1f} of the machine's {memory.total / GIB:.1f} GiB of memory were "
            f"in use, over the limit of {self._memory_limit:.0%}"
        )
        together = sum(held.values()) + idle
        most = max(held.values(), default=0)
        is_small = most < LEAST_SHARE * memory.total and together < COMMON_SHARE * memory.used
        if is_small or not held:
            now = time.monotonic()
            if now < self._said_until:
                return []
            self._said_until = now + QUIET_SECONDS
            return [
                f"{used}, and the sweep's workers hold {together / GIB:.1f} GiB of that: "
                "no trial begins until there is room"
            ]
        self._relief_due = time.monotonic() + RELIEF_SECONDS
        beat = max(held, key=lambda beat: held[beat])
        message = f"{used}, and {beat} held the most of all workers, {most / GIB:.1f} GiB"
        assert beat.trial is not None
        failure = Failure("OUT_OF_MEMORY", "HostMemory", message, "")
        return [self._end(beat.trial, trials[beat.trial], failure)]

    def _end(self, trial: str, ranks: list[Heartbeat], failure: Failure) -> str:
        """Kill all ranks of a trial; why stands in its folder first, unless a rank said so."""
        folder = self._trials / trial
        if not (folder / FAILURE).exists():
            with suppress(OSError):  # a full disk saves nobody
                write_failure(folder, failure)
        for beat in ranks:
            if beat.is_alive:
                _kill(beat.pid)
            beat.file.unlink(missing_ok=True)
        return f"trial {trial} was ended: {failure.message}"


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
