"""TRL as one uses it without this project: its trainer, its own loop, a trial's settings.

What the benchmarks compare with. The arguments are written out here instead of being taken from
`easyds_tune.algorithms`, so that a difference between the two shows as another loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer

from easyds_tune.data.records import PreferencePair, assistant
from easyds_tune.spec.sweep import TrialSpec

LORA_TASK = {"sft": "CAUSAL_LM", "dpo": "CAUSAL_LM", "rm": "SEQ_CLS"}


def bare_trainer(
    trial: TrialSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Dataset,
    folder: Path,
) -> Trainer:
    """TRL's trainer of the trial's algorithm on the CPU, ready for `train()`.

    data: with TRL's own columns, as text or tokenised; folder: what the trainer may write to.
    """
    from peft import LoraConfig
    from trl import (
        DPOConfig,
        DPOTrainer,
        RewardConfig,
        RewardTrainer,
        SFTConfig,
        SFTTrainer,
    )

    trainers = {
        "sft": (SFTTrainer, SFTConfig),
        "rm": (RewardTrainer, RewardConfig),
        "dpo": (DPOTrainer, DPOConfig),
    }
    trainer_class, config_class = trainers[trial.algorithm.type]
    trainer: Trainer = trainer_class(
        model=model,
        args=config_class(**_arguments(trial, folder)),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=trial.model.lora_r,
            lora_alpha=trial.model.lora_alpha,
            lora_dropout=trial.model.lora_dropout,
            target_modules=trial.model.lora_target_modules,
            task_type=LORA_TASK[trial.algorithm.type],
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(trial: TrialSpec, folder: Path) -> dict[str, Any]:
    training = trial.training
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": trial.budget.max_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": False,
        "max_length": trial.algorithm.max_length,
        "seed": trial.seed,
        "deepspeed": {
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": 2},
            "zero_allow_untested_optimizer": True,
        },
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        "logging_steps": trial.budget.max_steps,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    if trial.algorithm.type == "dpo":
        arguments["beta"] = trial.algorithm.beta
    return arguments


def trl_rows(pairs: list[PreferencePair]) -> list[dict[str, Any]]:
    """Preference pairs in TRL's conversational format."""
    return [
        {
            "prompt": list(pair.prompt),
            "chosen": [assistant(pair.chosen)],
            "rejected": [assistant(pair.rejected)],
        }
        for pair in pairs
    ]
