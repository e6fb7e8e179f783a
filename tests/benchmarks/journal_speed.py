"""The journal of a large sweep: time and memory to read it, and what fsync costs an append.

A million reports are read as every command reads them, in a process of their own each time, with
12 and with 30 metrics a report. The processor's time is what counts on a machine that others use.
Promised: at most 10 s and 1 GB. Appending is timed with fsync and without, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness import (
    SPREAD_HEADER,
    Spread,
    Target,
    parser,
    show_targets,
    table,
    write_result,
)

from easyds_tune.journal.events import (
    Objective,
    ReportEvent,
    SuggestEvent,
    SweepEvent,
    encode_line,
)
from easyds_tune.journal.writer import JournalWriter
from easyds_tune.results.load import load_sweep_record

METRICS = (12, 30)
TRIALS = 1000
APPENDED = 300
BEGIN = 1_763_700_000.0


def main() -> None:
    """Write the journals, read each in turn in fresh processes, then append."""
    options = parser(__doc__, rounds=3)
    options.add_argument("--reports", type=int, default=1_000_000, help="lines (default 1,000,000)")
    options.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.read is not None:
        print(json.dumps(read_once(arguments.read)))
        return
    samples: dict[str, dict[int, list[float]]] = {
        what: {count: [] for count in METRICS} for what in ("seconds", "wall", "megabytes")
    }
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {}
        for count in METRICS:
            folder = Path(scratch) / str(count)
            folder.mkdir()
            sizes[count] = write_journal(folder / "journal.jsonl", arguments.reports, count)
        for turn in range(arguments.rounds):
            for count in METRICS if turn % 2 else reversed(METRICS):
                for what, value in read_apart(Path(scratch) / str(count)).items():
                    samples[what][count].append(value)
        appends = measure_appends(Path(scratch), arguments.rounds)
    rows = [
        [f"{what}, {count} metrics", *Spread.of(samples[what][count]).row()]
        for what in samples
        for count in METRICS
    ]
    rows += [[f"appends a second, {how}", *Spread.of(appends[how]).row()] for how in appends]
    print(table([f"{arguments.reports:,} reports", *SPREAD_HEADER], rows))
    targets = [
        target
        for count in METRICS
        for target in (
            Target(f"processor seconds to read, {count} metrics",
                   Spread.of(samples["seconds"][count]).median, 10, "at most"),
            Target(f"resident megabytes, {count} metrics",
                   Spread.of(samples["megabytes"][count]).median, 1000, "at most"),
        )
    ]  # fmt: skip
    show_targets(targets)
    measured = {"reports": arguments.reports, "bytes": sizes, **samples, "appends": appends}
    write_result(arguments.out, "journal_speed", targets, measured)


def first_event() -> SweepEvent:
    """The sweep that all journals here are of."""
    return SweepEvent("speed", "dpo", Objective("eval/metric_00"), TRIALS, 10**6, BEGIN)


def metrics(source: random.Random, count: int) -> dict[str, float]:
    """Numbers with all their digits, as training makes them."""
    return {f"eval/metric_{i:02d}": source.random() for i in range(count)}


def write_journal(path: Path, reports: int, count: int) -> int:
    """Write a journal of trials that report side by side, without fsync; its bytes."""
    source = random.Random(count)
    events: list[SweepEvent | SuggestEvent] = [first_event()]
    events += [SuggestEvent(f"{n:03d}", n, {"x": n / 7}, "sampler") for n in range(TRIALS)]
    with path.open("wb") as stream:
        for seq, event in enumerate(events):
            stream.write(encode_line(seq, BEGIN, event))
        for done in range(reports):
            trial, step = f"{done % TRIALS:03d}", 1 + done // TRIALS
            report = ReportEvent(trial, step, metrics(source, count))
            stream.write(encode_line(len(events) + done, BEGIN + done / 8, report))
    return path.stat().st_size


def read_apart(folder: Path) -> dict[str, float]:
    """What reading a sweep's journal costs a process that does nothing else."""
    command = [sys.executable, __file__, "--out", os.devnull, "--read", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def read_once(folder: Path) -> dict[str, float]:
    """Read a journal in this process: user seconds, seconds on the wall, and peak memory."""
    user, wall = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.perf_counter()
    record = load_sweep_record(folder)
    wall = time.perf_counter() - wall
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert record.trials
    return {
        "seconds": used.ru_utime - user,
        "wall": wall,
        "megabytes": used.ru_maxrss * 1024 / 1e6,
    }


def measure_appends(scratch: Path, rounds: int) -> dict[str, list[float]]:
    """Appends a second of reports with 12 metrics, each on disk before the next, and not."""
    found: dict[str, list[float]] = {"fsynced": [], "unfsynced": []}
    source = random.Random(0)
    for turn in range(rounds):
        for how in sorted(found, reverse=bool(turn % 2)):
            folder = scratch / f"{how}-{turn}"
            folder.mkdir()
            with without_fsync(how == "unfsynced"):
                writer, _ = JournalWriter.create(folder / "journal.jsonl", first_event())
                events = [ReportEvent("000", n, metrics(source, 12)) for n in range(APPENDED)]
                began = time.perf_counter()
                with writer:
                    for event in events:
                        writer.append(event)
                found[how].append(APPENDED / (time.perf_counter() - began))
    return found


@contextmanager
def without_fsync(wanted: bool) -> Iterator[None]:
    """Within the block, fsync does nothing where that is wanted."""

    def nothing(handle: Any) -> None:
        pass

    if not wanted:
        yield
        return
    with patch("os.fsync", nothing):
        yield


if __name__ == "__main__":
    main()
