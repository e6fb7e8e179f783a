"""What the finals hand over of the same searches: the nomination rules of two commits, paired.

    python -m tests.benchmarks.decisions.nomination run --seeds 40 --out new.json
    python -m tests.benchmarks.decisions.nomination compare old.json new.json

The first command runs in a checkout of each commit: nothing before the finals depends on who enters
them, so both judge the same checkpoints on the same prompts. One process.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easyds_tune.decisions.make import make_decider
from easyds_tune.journal.bounds import violation
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.finals import settle
from easyds_tune.results.ranking import DEFAULT_TRIAL_NUMBER
from easyds_tune.simulation.curves import Curves
from easyds_tune.simulation.discrete import simulate
from easyds_tune.spec.sweep import SweepSpec
from tests.benchmarks.decisions.baselines import seed_everything
from tests.benchmarks.decisions.runs import JUDGES, LANDSCAPES, Best, find_best, landscape, spec_of


def main() -> None:
    """Run, or compare two runs."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = arguments.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--seeds", type=int, default=40)
    running.add_argument("--first-seed", type=int, default=0)
    running.add_argument("--slots", type=int, default=4)
    running.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    running.add_argument("--out", type=Path, required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    chosen = arguments.parse_args()
    if chosen.command == "compare":
        print(table(json.loads(chosen.old.read_text()), json.loads(chosen.new.read_text())))
        return
    rows = []
    for name in chosen.landscapes:
        best = find_best(name)
        for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
            rows.append(measure(name, chosen.slots, seed, best))
            chosen.out.write_text(json.dumps(rows), encoding="utf-8")
        print(f"{name}: {len(rows)} runs", file=sys.stderr, flush=True)


def measure(name: str, slots: int, seed: int, best: Best) -> dict[str, Any]:
    """One sweep: the regret of what it hands over, what that is, and what the finals took."""
    spec: SweepSpec = spec_of(name).model_copy(update={"seed": seed})
    curves = Curves(landscape(name), judge=JUDGES * slots + seed)
    seed_everything(seed)
    record = simulate(spec, curves, lambda r: make_decider(spec, r, slots), slots).record
    return {"landscape": name, "seed": seed, **outcome(record, curves, best)}


def outcome(record: SweepRecord, curves: Curves, best: Best) -> dict[str, Any]:
    """What the finals of a record hand over, against the truth."""
    settled = settle(record)
    winner = settled.winner if settled is not None else None
    found: dict[str, Any] = {"judged": len(record.finalists), "holds": None, "regret": None}
    if winner is None:
        return found | {"what": "nothing", "regret": best.value - best.start}
    truth = curves.truth(winner.trial.params, winner.step)
    value, is_outside = truth[record.objective.metric], violation(record.bounds, truth) > 0
    what = "default" if winner.trial.number == DEFAULT_TRIAL_NUMBER else "searched"
    return found | {
        "what": "outside" if is_outside else what,
        "regret": best.value - (best.start if is_outside else value),
        "holds": winner.reported.low <= value <= winner.reported.high,
    }


def table(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> str:
    """Old and new beside each other, on the seeds that both have."""
    before = {(row["landscape"], row["seed"]): row for row in old}
    after = {(row["landscape"], row["seed"]): row for row in new}
    both = [key for key in after if key in before]
    lines = [
        "| place | seeds | regret, mean ± error | median [quartiles] | difference, mean ± error "
        "| better, worse | nothing | default | outside | judged | interval holds the truth |",
        "| --- " * 11 + "|",
    ]
    for place in dict.fromkeys(name for name, _ in both):
        pairs = [(before[key], after[key]) for key in both if key[0] == place]
        gaps = [b["regret"] - a["regret"] for a, b in pairs]
        better, worse = (sum(sign * gap < -1e-9 for gap in gaps) for sign in (1, -1))
        one, other = (_cells([pair[index] for pair in pairs]) for index in (0, 1))
        cells = [f"{a} → {b}" for a, b in zip(one, other, strict=True)]
        cells[2:2] = [_mean(gaps, "+.4f"), f"{better}, {worse}"]
        lines.append(f"| {place} | {len(pairs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(rows: Sequence[dict[str, Any]]) -> list[str]:
    regrets = sorted(row["regret"] for row in rows)
    low, middle, high = statistics.quantiles(regrets, n=4, method="inclusive")
    what = Counter(row["what"] for row in rows)
    holds = [row["holds"] for row in rows if row["holds"] is not None]
    return [
        _mean(regrets, ".4f"),
        f"{middle:.3f} [{low:.3f}, {high:.3f}]",
        str(what["nothing"]),
        str(what["default"]),
        str(what["outside"]),
        f"{statistics.fmean(row['judged'] for row in rows):.1f}",
        f"{sum(holds)}/{len(holds)}",
    ]


def _mean(values: Sequence[float], form: str) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):{form}} ± {error:.4f}"


if __name__ == "__main__":
    main()
