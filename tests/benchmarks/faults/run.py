"""Provoke the faults of `rows.py` and print the grid: fault, expected, seen, pass.

    python -m tests.benchmarks.faults.run --out FOLDER            all of them, ours and Ray's
    python -m tests.benchmarks.faults.run --out FOLDER --rows 1,9 --side ours --seeds 1

Each run of a fault gets a folder of its own in a temporary place, real processes and real training.
Exit code 1 where a row of ours fails. What `faults.json` in FOLDER holds of rows that are not run
again stays there, so that the grid can be filled in pieces.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.benchmarks.faults.grid import console, markdown
from tests.benchmarks.faults.place import Outcome, Unseen, leave_when_told, place_in
from tests.benchmarks.faults.rows import ROWS, Row, Script
from tests.benchmarks.harness import machine

SIDES = ("ours", "ray")


@dataclass(frozen=True)
class Seen:
    """One run of one fault on one side."""

    row: int
    side: str
    seed: int
    passed: bool
    seen: str
    recovery_seconds: float | None
    seconds: float


def main() -> int:
    """Run what was asked for, print and write the grid."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--out", type=Path, required=True, help="gets faults.json and faults.md")
    arguments.add_argument("--rows", default="", help="numbers, such as 1,9; default all")
    arguments.add_argument("--seeds", type=int, help="of each row; default 3 or 1, as rows.py says")
    arguments.add_argument("--side", choices=SIDES, help="default both")
    arguments.add_argument("--keep", type=Path, help="work here, and leave the folders")
    args = arguments.parse_args()
    leave_when_told()
    wanted = {int(number) for number in args.rows.split(",") if number}
    rows = [row for row in ROWS if row.number in wanted or not wanted]
    args.out.mkdir(parents=True, exist_ok=True)
    kept = read(args.out)
    with tempfile.TemporaryDirectory(prefix="easyds-faults-") as scratch:
        folder = args.keep or Path(scratch)
        for row in rows:
            for side in [args.side] if args.side else SIDES:
                found = [
                    provoke(row, side, seed, folder) for seed in range(args.seeds or row.seeds)
                ]
                kept = [seen for seen in kept if (seen.row, seen.side) != (row.number, side)]
                kept = sorted([*kept, *found], key=lambda seen: (seen.row, seen.side, seen.seed))
                write(args.out, kept)
    print(console(kept))
    failed = [seen for seen in kept if seen.side == "ours" and not seen.passed]
    return 1 if failed else 0


def provoke(row: Row, side: str, seed: int, folder: Path) -> Seen:
    """Run one fault once, in a folder of its own."""
    script: Script = row.ours if side == "ours" else row.ray
    print(f"{row.number:2} {side:4} seed {seed}: {row.fault} ... ", end="", flush=True)
    started = time.monotonic()
    with place_in(folder / f"{row.number}-{side}-{seed}") as place:
        try:
            outcome = script(place, seed)
        except Unseen as error:
            outcome = Outcome(False, str(error))
        except Exception as error:  # a row whose script breaks is a row that is not passed
            outcome = Outcome(False, f"{type(error).__name__}: {error}")
    # The folder is gone when the grid is read.
    outcome = replace(outcome, seen=outcome.seen.replace(f"{place.folder}/", ""))
    seconds = time.monotonic() - started
    print(f"{'pass' if outcome.passed else 'FAIL'} ({seconds:.0f} s): {outcome.seen}", flush=True)
    return Seen(row.number, side, seed, seconds=round(seconds, 1), **asdict(outcome))


def read(folder: Path) -> list[Seen]:
    """What earlier calls have seen."""
    path = folder / "faults.json"
    if not path.is_file():
        return []
    return [Seen(**seen) for seen in json.loads(path.read_text(encoding="utf-8"))["seen"]]


def write(folder: Path, seen: list[Seen]) -> None:
    """Write the grid as JSON and as Markdown."""
    result = {"machine": machine(), "seen": [asdict(one) for one in seen]}
    (folder / "faults.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (folder / "faults.md").write_text(markdown(seen), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
