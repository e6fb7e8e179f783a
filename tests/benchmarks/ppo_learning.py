"""Does PPO learn the demo, and does the KL meet its target? `make learn` runs it.

    python tests/benchmarks/ppo_learning.py --targets 0.05 0.1 0.2 --seeds 0 1 2 --out FOLDER

Trains sweeps/ppo.yaml's default configuration for 60 rollouts for each KL target and seed, nothing
else changed between them, and prints the mean KL of the last 20 rollouts, the judge's reward and
KL, and the share of replies that guide without giving the answer away, by the demo's rule, which
nothing here is trained on. Trials that FOLDER has already are not run again.

Promised: the KL within 30 % of each target; at the spec's own target the judge's reward rises by at
least a fifth of the way to what the bundled guiding replies score, with a KL of at most 0.2, and
more than 90 % of the replies guide. Exit code 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import Target, show_targets, write_result
from torch import nn

from easyds_tune.data.read import read
from easyds_tune.models.generate import Sampling, end_token_ids, generate, unwrap
from easyds_tune.models.load import load_model
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.spec.data import DataSource
from easyds_tune.spec.load import load_sweep
from easyds_tune.spec.sweep import SweepSpec, trial_spec
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import SweepRecords, read_records
from easyds_tune.trial.run import run_trial
from easyds_tune.trial.workbench import Workbench

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
ITERATIONS, LAST = 60, 20


def main() -> None:
    """Run what is missing, print a row for each trial and a verdict for each promise."""
    arguments = argparse.ArgumentParser(description="Does PPO learn the demo?")
    arguments.add_argument("--targets", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--set", action="append", default=[], metavar="a.b=c")
    arguments.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = arguments.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    out = options.out.resolve()
    os.chdir(ROOT)  # the spec's paths are relative to it
    sweep = load_sweep(
        "sweeps/ppo.yaml",
        [f"training.max_steps={ITERATIONS}", f"training.eval_steps={LAST}", *options.set],
    )
    records = read_records(sweep.data, "ppo", sweep.judge)
    bench = Workbench(sweep, records, CPU)
    guided = guides_share(bench, records)
    rows = Rows(out / "trials.jsonl")
    print(HEADER)
    rows.show_or_add("start", lambda: start_row(sweep, bench, guided))
    for target in options.targets:
        for seed in options.seeds:
            rows.show_or_add(
                f"{target:g}-{seed}",
                lambda target=target, seed=seed: trial_row(sweep, bench, guided, target, seed),
            )
    promises = targets(rows, sweep.algorithm.kl_target, options)
    show_targets(promises)
    write_result(out, "ppo_learning", promises, {"trials": list(rows.found.values())})
    sys.exit(not all(promise.met for promise in promises))


class Rows:
    """What was measured, by trial, in a file that outlives an interrupted run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.found = {row["trial"]: row for row in map(json.loads, lines)}

    def show_or_add(self, trial: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure a trial unless it has been, and print its row."""
        if trial not in self.found:
            self.found[trial] = {"trial": trial, **measure()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.found[trial]) + "\n")
        print(shown(self.found[trial]), flush=True)


HEADER = """| KL target | seed | KL of the last 20 | / target | eval/reward | eval/kl | guides |
| --- | --- | --- | --- | --- | --- | --- |"""


def shown(row: dict[str, Any]) -> str:
    """A trial as a row of the table."""
    judged = f"{row['reward']:.3f} ± {row['reward_stderr']:.3f} | {row['kl']:.3f} | "
    judged += f"{row['guides']:.0%} |"
    if row["trial"] == "start":
        return f"| start | | | | {judged}"
    ratio = row["kl_last_20"] / row["target"]
    return f"| {row['target']:g} | {row['seed']} | {row['kl_last_20']:.4f} | {ratio:.2f} | {judged}"


def targets(rows: Rows, own_target: float, options: argparse.Namespace) -> list[Target]:
    """The promises, for the worst of the trials asked for."""
    start = rows.found["start"]
    asked = [rows.found[f"{t:g}-{seed}"] for t in options.targets for seed in options.seeds]
    ratios = [row["kl_last_20"] / row["target"] for row in asked]
    found = [
        Target("smallest KL / target", min(ratios), 0.7, "at least"),
        Target("largest KL / target", max(ratios), 1.3, "at most"),
    ]
    own = [row for row in asked if row["target"] == own_target]
    if own:
        way = start["best"] - start["reward"]
        rises = [(row["reward"] - start["reward"]) / way for row in own]
        found += [
            Target("smallest rise of eval/reward, share of the way", min(rises), 0.2, "at least"),
            Target("largest eval/kl", max(row["kl"] for row in own), 0.2, "at most"),
            Target("fewest replies that guide", min(row["guides"] for row in own), 0.9, "at least"),
        ]
    return found


def start_row(
    sweep: SweepSpec, bench: Workbench, guided: Callable[[nn.Module], float]
) -> dict[str, Any]:
    """The policy before training, and what guiding replies score that a person wrote."""
    share = guided(load_model(sweep.model, "causal", CPU))
    raw = sweep.model_dump()
    raw["training"] |= {"max_steps": 0, "eval_steps": None}
    untrained = trial_spec(SweepSpec.model_validate(raw), "start", {})
    with tempfile.TemporaryDirectory() as folder:
        (report,) = run_trial(untrained, bench, Path(folder))
    replies = read(DataSource(path="data/easyds/sft.jsonl", limit=512), "conversations").records
    assert sweep.judge is not None
    best = RewardModel(sweep.judge.reward, CPU).score(
        [chat.messages[:-1] for chat in replies],
        [chat.messages[-1]["content"] for chat in replies],
    )
    return judged(report.metrics, share) | {"best": best.mean().item()}


def judged(metrics: dict[str, float], share: float) -> dict[str, float]:
    """What the judge and the demo's rule say."""
    return {
        "reward": metrics["eval/reward"],
        "reward_stderr": metrics["eval/reward_stderr"],
        "kl": metrics["eval/kl"],
        "guides": share,
    }


def trial_row(
    sweep: SweepSpec,
    bench: Workbench,
    guided: Callable[[nn.Module], float],
    target: float,
    seed: int,
) -> dict[str, Any]:
    """Train one trial and measure it."""
    raw = sweep.model_dump() | {"seed": seed}
    raw["algorithm"]["kl_target"] = target
    spec = trial_spec(SweepSpec.model_validate(raw), f"{target:g}-{seed}", {})
    began = time.perf_counter()
    share = float("nan")
    curve = []
    with tempfile.TemporaryDirectory() as folder:
        for report in run_trial(spec, bench, Path(folder)):
            curve.append(report.metrics)
            if report.is_last:
                policy = load_policy(sweep, report.checkpoint.path)
                share = guided(policy)
    return judged(curve[-1], share) | {
        "target": target,
        "seed": seed,
        "kl_last_20": curve[-1]["train/kl"],
        "seconds": time.perf_counter() - began,
        "curve": curve,
    }


def load_policy(sweep: SweepSpec, checkpoint: Path) -> nn.Module:
    """The trained policy, loaded as anybody would."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(sweep.model, "causal", CPU), checkpoint)


def guides_share(bench: Workbench, records: SweepRecords) -> Callable[[nn.Module], float]:
    """A function that says how many of a policy's replies to the judge's prompts guide."""
    sys.path.insert(0, str(ROOT / "data"))
    from dialogues import guides

    lines = (ROOT / "data/easyds/judge_prompts.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert len(answers) == len(records.prompts)
    ids = bench.encoder.prompts([prompt.messages for prompt in records.prompts])

    def share(model: nn.Module) -> float:
        replies = generate(
            model,
            ids,
            Sampling(max_new_tokens=64, batch_size=64),
            eos_token_ids=end_token_ids(unwrap(model), bench.tokenizer),
            pad_token_id=bench.tokenizer.pad_token_id,
        )
        told = [
            guides(bench.encoder.text(reply), answer)
            for reply, answer in zip(replies, answers, strict=True)
        ]
        return sum(told) / len(told)

    return share


if __name__ == "__main__":
    main()
