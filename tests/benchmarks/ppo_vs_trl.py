"""PPO of this project against TRL 1.12.0's PPOTrainer, the last one there is: speed and memory.

Same base, LoRA policy, reward model, prompts, reply length, batch, inner epochs and number of
updates; every run is a process of its own with one thread, and the variants take turns. Three
parts: `speed` on the bundled models, `memory` on random weights of about 100M parameters, and
`gpu` on a random Qwen2-0.5B in bfloat16, which is skipped where there is no CUDA device.

TRL trains a whole second model for the values; a third variant, TRL with all of that model frozen
but its head, stands beside it and says how much of the difference that is.
Promised: at least 1.5 times TRL's samples a second, at most 0.6 times its peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import (
    EASYDS,
    MODEL,
    SPREAD_HEADER,
    Spread,
    Target,
    parser,
    ratios,
    show_targets,
    table,
    write_result,
)
from ppo_models import ABOUT_100M, QWEN2_HALF_B, make_models, write_prompts
from ppo_task import Task

from easyds_tune.data.read import read
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.models.load import load_tokenizer
from easyds_tune.spec.data import DataSource

TRL_VERSION = "1.12.0"
SCRIPTS = Path(__file__).parent
VARIANTS = ("ours", "trl", "trl, frozen value trunk")
MEMORY_ROUNDS = 2
"""A peak hardly varies, and a round takes minutes."""

Runs = dict[str, list[dict[str, Any]]]
"""Variant -> what each of its runs printed."""


def main() -> None:
    """Run the parts asked for, one after another."""
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all of them"
    )
    arguments.add_argument(
        "--trl",
        type=Path,
        help=f"folder that has it: pip install --no-deps --target FOLDER trl=={TRL_VERSION} "
        "(default: a temporary one, installed now)",
    )
    options = arguments.parse_args()
    targets: list[Target] = []
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        trl = options.trl or install_trl(scratch / "trl")
        for part in options.parts:
            if part == "gpu" and not torch.cuda.is_available():
                print("gpu: skipped, no CUDA device here")
                continue
            task = with_prompt_ids(PARTS[part](scratch), scratch)
            rounds = MEMORY_ROUNDS if part == "memory" else options.rounds
            runs = take_turns(part, task, rounds, trl, scratch)
            targets += report(part, task, runs)
            measured[part] = {"task": task_settings(task), "runs": runs}
    show_targets(targets)
    write_result(options.out, "ppo_vs_trl", targets, measured)


def install_trl(folder: Path) -> Path:
    """TRL alone; everything it needs is what this project runs on."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run(
        [*command, "--no-deps", "--target", str(folder), f"trl=={TRL_VERSION}"], check=True
    )
    return folder


# ---- the parts ------------------------------------------------------------------------------


def speed_task(scratch: Path) -> Task:
    """The bundled tutor and reward model, as `sweeps/ppo.yaml` uses them."""
    return Task(
        model=str(MODEL), reward_model=str(MODEL.with_name("tiny-reward")),
        prompts=str(EASYDS / "prompts.jsonl"), prompt_ids="", device="cpu", dtype="float32",
        replies=64, reply_length=48, micro_batch=16, epochs=4, steps=4,
    )  # fmt: skip


def memory_task(scratch: Path) -> Task:
    """Random weights of about 100M parameters in float32."""
    model, reward_model = make_models(scratch / "100m", ABOUT_100M, "float32", "cpu")
    prompts = write_prompts(scratch / "100m.jsonl", model, 64, 32)
    return Task(
        model=model, reward_model=reward_model, prompts=str(prompts), prompt_ids="",
        device="cpu", dtype="float32", replies=16, reply_length=32, micro_batch=8, epochs=1,
        steps=2,
    )  # fmt: skip


def gpu_task(scratch: Path) -> Task:
    """Random weights of Qwen2-0.5B's sizes in bfloat16."""
    model, reward_model = make_models(scratch / "half-b", QWEN2_HALF_B, "bfloat16", "cuda")
    prompts = write_prompts(scratch / "half-b.jsonl", model, 256, 64)
    return Task(
        model=model, reward_model=reward_model, prompts=str(prompts), prompt_ids="",
        device="cuda", dtype="bfloat16", replies=64, reply_length=128, micro_batch=16, epochs=4,
        steps=4,
    )  # fmt: skip


PARTS = {"speed": speed_task, "memory": memory_task, "gpu": gpu_task}


def with_prompt_ids(task: Task, scratch: Path) -> Task:
    """The task with its prompts as our side will tokenise them, for TRL's."""
    tokenizer = load_tokenizer(task.model)
    encoder = Encoder(tokenizer, choose_template(tokenizer, None))
    prompts = read(DataSource(path=task.prompts), "prompts").records
    path = scratch / "prompt_ids.json"
    path.write_text(json.dumps(encoder.prompts([prompt.messages for prompt in prompts])))
    return replace(task, prompt_ids=str(path))


def task_settings(task: Task) -> dict[str, Any]:
    """The task without the folders of this run."""
    folders = ("model", "reward_model", "prompts", "prompt_ids")
    return {name: value for name, value in vars(task).items() if name not in folders}


# ---- running --------------------------------------------------------------------------------


def take_turns(part: str, task: Task, rounds: int, trl: Path, scratch: Path) -> Runs:
    """Every variant once a round, in alternating order."""
    runs: Runs = {variant: [] for variant in VARIANTS}
    for turn in range(rounds):
        for variant in VARIANTS if turn % 2 else reversed(VARIANTS):
            result = run_side(variant, task, trl, scratch)
            rate = task.replies / Spread.of(result["seconds"]).median
            print(
                f"{part}, round {turn + 1}: {variant} {rate:.2f} samples/s, "
                f"peak {result['peak_mib']:.0f} MiB",
                file=sys.stderr,
            )
            runs[variant].append(result)
    return runs


def run_side(variant: str, task: Task, trl: Path, scratch: Path) -> dict[str, Any]:
    """One run in a process of its own; what it printed last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if variant == "ours":
        script = "ppo_ours.py"
    else:
        script = "ppo_trl.py"
        environment["PYTHONPATH"] = str(trl)  # found before the TRL that is installed
        value_model = "frozen" if "frozen" in variant else "trained"
        task = replace(task, value_model=value_model)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), str(task.write(scratch / "task.json"))],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{variant} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if variant != "ours" and result["trl"] != TRL_VERSION:
        raise SystemExit(f"--trl must hold TRL {TRL_VERSION}, got {result['trl']} from {trl}")
    return result


# ---- reporting ------------------------------------------------------------------------------


def report(part: str, task: Task, runs: Runs) -> list[Target]:
    """Print a part's table; its promises."""
    seconds = {name: medians(results, "seconds") for name, results in runs.items()}
    processor = {name: medians(results, "processor_seconds") for name, results in runs.items()}
    peaks = {name: [result["peak_mib"] for result in results] for name, results in runs.items()}
    body = []
    for name in runs:
        rates = [task.replies / value for value in seconds[name]]
        body.append([f"{name}, samples/s", *Spread.of(rates).row()])
        body.append([f"{name}, peak MiB", *Spread.of(peaks[name]).row()])
    faster, smaller = {}, {}
    for name in VARIANTS[1:]:
        faster[name] = Spread.of(ratios(seconds[name], seconds["ours"]))
        smaller[name] = Spread.of(ratios(peaks["ours"], peaks[name]))
        less_work = Spread.of(ratios(processor[name], processor["ours"]))
        body.append([f"samples/s, ours / {name}", *faster[name].row()])
        body.append([f"the same by processor time, ours / {name}", *less_work.row()])
        body.append([f"peak, ours / {name}", *smaller[name].row()])
    print(table([part, *SPREAD_HEADER], body))
    found = []
    if part != "memory":
        name = f"{part}: samples/s, ours / TRL's"
        found.append(Target(name, faster["trl"].median, 1.5, "at least"))
    if part != "speed":
        name = f"{part}: peak memory, ours / TRL's"
        found.append(Target(name, smaller["trl"].median, 0.6, "at most"))
    return found


def medians(results: list[dict[str, Any]], name: str) -> list[float]:
    """The median step of each run."""
    return [Spread.of(result[name]).median for result in results]


if __name__ == "__main__":
    main()
