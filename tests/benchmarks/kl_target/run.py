"""Does PPO hold its KL target on models and rewards it was not tuned on? `make kltargets` runs it.

    python -m tests.benchmarks.kl_target.run --stories FOLDER --before REVISION --out FOLDER

Trains the demo's default configuration for 60 rollouts on every setting of `settings.py` (a model
of English stories with rewards made by a rule, and the bundled tutor, at several reward scales)
with GAE, RLOO and GRPO, three KL targets and three seeds. `--before` trains the same with the
package of an earlier commit, for comparison. Trials that FOLDER has already are not run again.

Promised of this checkout: the mean KL of the last 20 rollouts within 30 % of its target in at least
90 % of the runs, and below twice the target in all; the gain in `eval/reward` over the start (the
mean of the last three evaluations of 128 prompts) at least 90 % of the run's best mean of three
evaluations, and at least 90 % of what the earlier commit gains where that holds its target. Exit
code 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import Target, checkout, show_targets, write_result

from tests.benchmarks.kl_target.pool import ROOT, run_all
from tests.benchmarks.kl_target.settings import ASKED, ESTIMATORS, EVAL_STEPS, LAST, SETTINGS
from tests.benchmarks.kl_target.stories import make_world

TARGETS, SEEDS = (0.05, 0.1, 0.2), (11, 12, 13)
EVALUATIONS = 3
"""Evaluations that a reward is the mean of."""


class Outcome(NamedTuple):
    """A trial, measured."""

    ratio: float
    """Mean KL of the last 20 rollouts over its target."""
    gain: float
    """`eval/reward` at the end less that of the start."""
    best_gain: float
    """The largest such gain at any time of the trial."""
    largest_ratio: float
    """The largest mean KL of 5 rollouts over its target, at any time."""

    @property
    def holds(self) -> bool:
        """Whether the KL met its target."""
        return 0.7 <= self.ratio <= 1.3


def main() -> None:
    """Run what is missing, write the table and a verdict for each promise."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--stories", type=Path, required=True, help="stories260k's folder")
    arguments.add_argument("--before", metavar="COMMIT", help="an earlier commit to compare with")
    arguments.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(ASKED))
    arguments.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    arguments.add_argument("--targets", nargs="+", type=float, default=list(TARGETS))
    arguments.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = arguments.parse_args()
    out, stories = options.out.resolve(), options.stories.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)  # the spec's paths are relative to it
    make_world(stories, out / "world")
    common = {"world": str(out / "world"), "stories": str(stories)}
    starts = [
        common | {"setting": setting, "estimator": "gae", "target": 0.1, "seed": 0, "max_steps": 0}
        for setting in options.settings
    ]
    asked = [
        common | {"setting": setting, "estimator": estimator, "target": target, "seed": seed}
        for seed, setting, estimator, target in itertools.product(
            options.seeds, options.settings, options.estimators, options.targets
        )
    ]
    started = run_all(starts, out / "starts.jsonl", ROOT, options.processes)
    start = {row["setting"]: row["curve"][0]["eval/reward"] for row in started}
    now = run_all(asked, out / "now.jsonl", ROOT, options.processes)
    before: list[dict[str, Any]] = []
    if options.before:
        with checkout(options.before) as code:
            before = run_all(asked, out / "before.jsonl", code, options.processes)
    report = table(start, now, before)
    (out / "kl_target.md").write_text(report + "\n", encoding="utf-8")
    print(report)
    promises = targets(start, now, before)
    show_targets(promises)
    write_result(out, "kl_target", promises, {"start": start, "now": now, "before": before})
    sys.exit(not all(promise.met for promise in promises))


def outcome(row: dict[str, Any], start: float) -> Outcome:
    """What a trial came to; start: the reward before training."""
    rewards = [point["eval/reward"] for point in row["curve"]]
    kls = [point["train/kl"] / row["target"] for point in row["curve"]]
    means = [
        sum(rewards[at : at + EVALUATIONS]) / EVALUATIONS
        for at in range(max(1, len(rewards) - EVALUATIONS + 1))
    ]
    last = kls[-LAST // EVAL_STEPS :]
    return Outcome(sum(last) / len(last), means[-1] - start, max(means) - start, max(kls))


Cell = tuple[str, str, float]


def cells(
    rows: Sequence[dict[str, Any]], start: dict[str, float]
) -> dict[Cell, dict[int, Outcome]]:
    """Outcomes by setting, estimator and target, then by seed."""
    found: dict[Cell, dict[int, Outcome]] = defaultdict(dict)
    for row in rows:
        cell = row["setting"], row["estimator"], row["target"]
        found[cell][row["seed"]] = outcome(row, start[row["setting"]])
    return found


def table(
    start: dict[str, float], now: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]
) -> str:
    """A row a cell: every seed's KL ratio and gain, this checkout's beside the earlier commit's."""
    ours, theirs = cells(now, start), cells(before, start)
    lines = [
        "| setting | estimator | target | KL / target | largest | gain | of its best |"
        " before: KL / target | gain |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in sorted(ours):
        found = [ours[cell][seed] for seed in sorted(ours[cell])]
        earlier = [theirs[cell][seed] for seed in sorted(theirs.get(cell, {}))]
        lines.append(
            f"| {cell[0]} | {cell[1]} | {cell[2]:g} | "
            f"{_each(o.ratio for o in found)} | {max(o.largest_ratio for o in found):.2f} | "
            f"{_each(o.gain for o in found)} | {min(o.gain / o.best_gain for o in found):.0%} | "
            f"{_each(o.ratio for o in earlier)} | {_each(o.gain for o in earlier)} |"
        )
    return "\n".join(lines)


def _each(values: Iterator[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def targets(
    start: dict[str, float], now: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]
) -> list[Target]:
    """The promises."""
    ours, theirs = cells(now, start), cells(before, start)
    all_of = [found for by_seed in ours.values() for found in by_seed.values()]
    compared = [
        ours[cell][seed].gain / earlier.gain
        for cell, by_seed in theirs.items()
        for seed, earlier in by_seed.items()
        if earlier.holds and earlier.gain > 0 and seed in ours.get(cell, {})
    ]
    share = sum(found.holds for found in all_of) / len(all_of)
    kept = min(found.gain / found.best_gain for found in all_of)
    promises = [
        Target("share of runs within 30 % of the KL target", share, 0.9, "at least"),
        Target("largest KL / target", max(found.ratio for found in all_of), 2.0, "at most"),
        Target("smallest gain at the end, share of its best", kept, 0.9, "at least"),
    ]
    if compared:
        promises.append(
            Target("smallest gain over the earlier commit's", min(compared), 0.9, "at least")
        )
    return promises


if __name__ == "__main__":
    main()
