"""TRL 1.12.0's PPOTrainer on a `Task`: the side of `ppo_vs_trl.py` that it is compared with.

Set up to be as fast as it can be: replies drawn and scored in one batch each, the reference by
switching the adapter off, no sample generations, no saving, no reporting, no gradient
checkpointing (ours has none either), and no DeepSpeed, which has nothing to divide where one
process trains. What cannot be set: its values come from a whole second model, trained in full.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from ppo_task import Meter, Task
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer


class StepEnds(TrainerCallback):
    """Marks the end of every step."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Called by TRL after a rollout and its updates."""
        self.meter.mark()


def main() -> None:
    """Train, and print what it took."""
    task = Task.from_command_line()
    torch.set_num_threads(1)
    meter = Meter(task.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(task, folder)
        trainer.add_callback(StepEnds(meter))
        trainer.train()
        meter.print_result(trl=trl.__version__)


def make_trainer(task: Task, folder: str) -> PPOTrainer:
    """The trainer of a task; folder: what it may write to."""
    dtype = getattr(torch, task.dtype)
    tokenizer = AutoTokenizer.from_pretrained(task.model, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(task.model, dtype=dtype)
    value_model = AutoModelForSequenceClassification.from_pretrained(
        task.model, num_labels=1, dtype=dtype
    )
    if task.value_model == "frozen":
        value_model.requires_grad_(False)
        value_model.score.requires_grad_(True)
    prompt_ids = json.loads(Path(task.prompt_ids).read_text(encoding="utf-8"))
    trainer = PPOTrainer(
        args=arguments(task, folder),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=AutoModelForSequenceClassification.from_pretrained(
            task.reward_model, dtype=dtype
        ),
        value_model=value_model,
        train_dataset=Dataset.from_dict({"input_ids": prompt_ids}),
        peft_config=LoraConfig(
            r=task.lora_r,
            lora_alpha=task.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(task: Task, folder: str) -> PPOConfig:
    """TRL's settings: one update with all replies in each inner epoch, as on our side."""
    return PPOConfig(
        output_dir=folder,
        total_episodes=task.steps * task.replies,
        per_device_train_batch_size=task.micro_batch,
        gradient_accumulation_steps=task.replies // task.micro_batch,
        num_mini_batches=1,
        num_ppo_epochs=task.epochs,
        local_rollout_forward_batch_size=task.replies,
        response_length=task.reply_length,
        stop_token=None,  # no token ends a reply
        temperature=1.0,
        learning_rate=task.learning_rate,
        lr_scheduler_type="constant",
        seed=task.seed,
        num_sample_generations=0,
        gradient_checkpointing=False,
        use_cpu=task.device == "cpu",
        bf16=False,  # the weights themselves are bfloat16 where the task says so
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main()
