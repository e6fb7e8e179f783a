"""Measure the demo's models as `data/README.md` reports them: python data/measure.py

Trains the card's SFT adapter (LoRA r = 16, learning rate 2e-3, 200 steps of 16), then draws a reply
per judge prompt from the tutor before and after, at two temperatures, and prints the table's rows
and twenty replies to read.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from dialogues import guides
from peft import PeftModel
from torch import nn

from easyds_tune.data.records import Prompt
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.models.generate import Sampling, generate
from easyds_tune.models.load import load_model, load_tokenizer
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.spec.load import validate
from easyds_tune.spec.sweep import trial_spec
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import read_records
from easyds_tune.trial.run import run_trial
from easyds_tune.trial.workbench import Workbench

CPU = torch.device("cpu")
HERE = Path(__file__).resolve().parent
SPEC: dict[str, Any] = {
    "name": "card",
    "algorithm": {"type": "sft", "max_length": 128},
    "model": {"model_name_or_path": str(HERE / "models/tiny-tutor"), "lora_r": 16},
    "data": {"train": str(HERE / "easyds/sft.jsonl"), "eval_fraction": 0.01},
    "judge": {
        "prompts": str(HERE / "easyds/judge_prompts.jsonl"),
        "num_prompts": 128,
        "max_new_tokens": 64,
        "reward": {"model_name_or_path": str(HERE / "models/tiny-reward")},
    },
    "training": {
        "max_steps": 200,
        "eval_steps": 200,
        "learning_rate": 2e-3,
        "per_device_train_batch_size": 16,
    },
}


def main() -> None:
    """Print a row of the card's table for each model and temperature, then samples."""
    quiet_libraries()
    torch.set_num_threads(1)
    sweep = validate(SPEC)
    assert sweep.judge is not None
    records = read_records(sweep.data, "sft", sweep.judge)
    tutor = load_model(sweep.model, "causal", CPU)
    reward = RewardModel(sweep.judge.reward, CPU)
    print("| | temperature | guides (rule) | reward | tokens mean / max | ended by itself |")
    measure("tiny-tutor", tutor, records.prompts, reward)
    with tempfile.TemporaryDirectory() as folder:
        trial = trial_spec(sweep, "sft", {})
        (report,) = run_trial(trial, Workbench(sweep, records, CPU), Path(folder))
        trained = PeftModel.from_pretrained(tutor, report.checkpoint.path)
        for question, reply in measure("after SFT", trained, records.prompts, reward)[:20]:
            print(f"> **学生** {question}\n> **助教** {reply}\n")


def measure(
    name: str, model: nn.Module, prompts: Sequence[Prompt], reward: RewardModel
) -> list[tuple[str, str]]:
    """Print the rows of one model; return its (question, reply) pairs at temperature 0.7."""
    tokenizer = load_tokenizer(SPEC["model"]["model_name_or_path"])
    encoder = Encoder(tokenizer, choose_template(tokenizer, None))
    lines = (HERE / "easyds/judge_prompts.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    samples: list[tuple[str, str]] = []
    for temperature in (0.7, 1.0):
        ids = generate(
            model,
            encoder.prompts([prompt.messages for prompt in prompts]),
            Sampling(max_new_tokens=64, temperature=temperature, batch_size=64),
            eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        replies = [encoder.text(one) for one in ids]
        scores = reward.score([prompt.messages for prompt in prompts], replies)
        guided = [guides(*pair) for pair in zip(replies, answers, strict=True)]
        lengths = [len(one) for one in ids]
        ended = sum(one[-1] == tokenizer.eos_token_id for one in ids)
        print(
            f"| {name} | {temperature} | {100 * sum(guided) / len(guided):.0f} % | "
            f"{scores.mean():.2f} ± {scores.std() / len(scores) ** 0.5:.2f} | "
            f"{sum(lengths) / len(lengths):.1f} / {max(lengths)} | {ended} of {len(ids)} |",
            flush=True,
        )
        questions = [prompt.messages[-1]["content"] for prompt in prompts]
        samples += zip(questions, replies, strict=True)
    return samples[: len(prompts)]


if __name__ == "__main__":
    main()
