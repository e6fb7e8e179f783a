"""Does PPO learn the demo, and does the KL meet its target? `make learn` runs it.

    python tests/benchmarks/ppo_learning.py --targets 0.05 0.1 0.2 --seeds 0 1 2 --out FOLDER

Trains sweeps/ppo.yaml's default configuration for 60 rollouts for each KL target and seed, and
prints the mean KL of the last 20 rollouts, the judge's reward and KL, and the share of replies that
guide without giving the answer away, by the demo's rule, which nothing here is trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from easyds_tune.models.generate import Sampling, end_token_ids, generate, unwrap
from easyds_tune.models.load import load_model
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
    """Print a row for the start and one for each trial; keep them as JSON lines in --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--out", type=Path, help="folder for ppo_learning.jsonl")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    sweep = load_sweep(
        str(ROOT / "sweeps/ppo.yaml"),
        [f"training.max_steps={ITERATIONS}", f"training.eval_steps={LAST}", *arguments.set],
    )
    records = read_records(sweep.data, "ppo", sweep.judge)
    bench = Workbench(sweep, records, CPU)
    guided = guides_share(bench, records)
    print("| KL target | seed | KL of the last 20 | / target | reward | eval/kl | guides | s |")
    found = [start_row(sweep, bench, guided)]
    for target in arguments.targets:
        for seed in arguments.seeds:
            found.append(trial_row(sweep, bench, guided, target, seed))
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                lines = "".join(json.dumps(row) + "\n" for row in found)
                (arguments.out / "ppo_learning.jsonl").write_text(lines, encoding="utf-8")


def start_row(
    sweep: SweepSpec, bench: Workbench, guided: Callable[[nn.Module], float]
) -> dict[str, Any]:
    """The policy before training."""
    model = load_model(sweep.model, "causal", CPU)
    share = guided(model)
    raw = sweep.model_dump()
    raw["training"]["max_steps"] = 0
    raw["training"]["eval_steps"] = None
    untrained = trial_spec(SweepSpec.model_validate(raw), "start", {})
    with tempfile.TemporaryDirectory() as folder:
        (report,) = run_trial(untrained, bench, Path(folder))
    row = {"start": True, "reward": report.metrics["eval/reward"], "guides": share}
    row["kl"] = report.metrics["eval/kl"]
    print(f"| start | | | | {row['reward']:.3f} | {row['kl']:.3f} | {share:.0%} | |", flush=True)
    return row


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
        trial = run_trial(spec, bench, Path(folder))
        for report in trial:
            curve.append(report.metrics)
            if report.is_last:
                policy = load_policy(sweep, report.checkpoint.path)
                share = guided(policy)
    last = curve[-1]
    row = {
        "target": target,
        "seed": seed,
        "kl_last_20": last["train/kl"],
        "reward": last["eval/reward"],
        "reward_stderr": last["eval/reward_stderr"],
        "kl": last["eval/kl"],
        "guides": share,
        "seconds": time.perf_counter() - began,
        "curve": curve,
    }
    print(
        f"| {target:g} | {seed} | {row['kl_last_20']:.4f} | {row['kl_last_20'] / target:.2f} | "
        f"{row['reward']:.3f} ± {row['reward_stderr']:.3f} | {row['kl']:.3f} | {share:.0%} | "
        f"{row['seconds']:.0f} |",
        flush=True,
    )
    return row


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
