"""What it costs that every line of the journal is on disk before anything goes on.

    python -m tests.benchmarks.faults.fsync --out FOLDER

The demo's sweep, with fewer trials, with and without the journal's fsync in turn; and within the
runs that have it, the seconds the driver spent in it, which no other load on the machine hides.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults.place import Place, leave_when_told, place_in
from tests.benchmarks.harness import (
    REPOSITORY,
    SPREAD_HEADER,
    Spread,
    Target,
    parser,
    ratios,
    show_targets,
    table,
    write_result,
)

LIMIT = 0.02
"""Share of the sweep's time that journalling may take."""


def main() -> int:
    """Time the variants, interleaved."""
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--trials", type=int, default=4)
    args = arguments.parse_args()
    leave_when_told()
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    shares = []
    with tempfile.TemporaryDirectory(prefix="easyds-fsync-") as scratch:
        for round_ in range(args.rounds):
            for variant, taken in seconds.items():
                with place_in(Path(scratch) / f"{variant}-{round_}") as place:
                    taken.append(run_demo(place, args.trials, synced=variant == "with"))
                    if variant == "with":
                        shares.append(journal_seconds(place) / taken[-1])
    print(
        table(["seconds", *SPREAD_HEADER], [[n, *Spread.of(s).row()] for n, s in seconds.items()])
    )
    ratio = Spread.of(ratios(seconds["with"], seconds["without"]))
    targets = [
        Target(
            "share of the time in writing the journal", Spread.of(shares).median, LIMIT, "at most"
        ),
        Target("time with fsync over without, less one", ratio.median - 1, LIMIT, "at most"),
    ]
    show_targets(targets)
    write_result(args.out, "fsync", targets, {"seconds": seconds, "shares": shares})
    return 0 if targets[0].met else 1


def run_demo(place: Place, trials: int, *, synced: bool) -> float:
    """Seconds of the demo's sweep, from its journal's first line to its last."""
    for name in ("data", "search_spaces", "sweeps"):
        (place.folder / name).symlink_to(REPOSITORY / name)
    faults = [{"kind": "time-journal" if synced else "no-fsync"}]
    arguments = ("--set", "name=demo", "--set", f"search.num_trials={trials}")
    our.finish(our.sweep(place, "ppo.yaml", *arguments, faults=faults))
    found = our.entries(place, "demo")
    return found[-1].time - found[0].time


def journal_seconds(place: Place) -> float:
    """Seconds the driver spent in appending to the journal."""
    text = (place.folder / "faults" / "journal-seconds").read_text(encoding="utf-8")
    return float(json.loads(text))


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(code)
