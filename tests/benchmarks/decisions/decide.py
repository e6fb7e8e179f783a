"""The decision benchmark: our searches against what people use, on curves whose truth is known.

    python -m tests.benchmarks.decisions.decide --seeds 20 --out FOLDER

Every method gets the same tokens (40 trials of full length), the same slots and the same noise, on
landscapes that were committed before any method ran on them. Ours picks by its finals, whose
judging is no training and is not counted; its default configuration, trial 0, is. Writes
decisions.md, decisions.json and two plots.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.benchmarks.decisions.costs import costs
from tests.benchmarks.decisions.plots import incumbents, regrets
from tests.benchmarks.decisions.runs import LANDSCAPES, METHODS, Best, Run, find_best, run
from tests.benchmarks.decisions.verdicts import Results, tables, verdicts

SLOTS = (1, 4, 16)


def main() -> None:
    """Run everything and write the folder."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--first-seed", type=int, default=0, help="others were not looked at")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    arguments.add_argument("--slots", nargs="+", type=int, default=SLOTS)
    arguments.add_argument("--no-costs", action="store_true", help="leave out the 1,000 trials")
    chosen = arguments.parse_args()
    began = time.monotonic()
    with ProcessPoolExecutor(chosen.processes) as pool:
        best = dict(zip(chosen.landscapes, pool.map(find_best, chosen.landscapes), strict=True))
        jobs = [
            pool.submit(run_all, name, slots, seed, best[name])
            for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds)
            for name in chosen.landscapes
            for slots in chosen.slots
        ]
        runs: list[Run] = []
        for count, job in enumerate(as_completed(jobs), start=1):
            runs += job.result()
            if count % 10 == 0:
                seconds = time.monotonic() - began
                print(f"{count}/{len(jobs)} after {seconds:.0f} s", file=sys.stderr, flush=True)
    order = {name: index for index, name in enumerate(chosen.landscapes)}
    runs.sort(key=lambda r: (order[r.landscape], r.slots, METHODS.index(r.method), r.seed))
    results = Results(runs, best)
    found = verdicts(results)
    measured = {} if chosen.no_costs else costs()
    text = tables(results, measured, found)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "decisions.md").write_text(text, encoding="utf-8")
    (chosen.out / "decisions-incumbents.svg").write_text(incumbents(results), encoding="utf-8")
    (chosen.out / "decisions-regret.svg").write_text(regrets(results), encoding="utf-8")
    (chosen.out / "decisions.json").write_text(
        json.dumps(
            {
                "seeds": [chosen.first_seed, chosen.first_seed + chosen.seeds],
                "seconds": round(time.monotonic() - began, 1),
                "best": {name: vars(value) for name, value in best.items()},
                "costs_seconds": measured,
                "targets": [verdict.to_json() for verdict in found],
                "runs": [one.to_json() for one in runs],
            }
        ),
        encoding="utf-8",
    )
    print(text)


def run_all(name: str, slots: int, seed: int, best: Best) -> list[Run]:
    """Every method, one after another."""
    return [run(name, method, slots, seed, best) for method in METHODS]


if __name__ == "__main__":
    main()
