"""What a TRL trial writes to go on from, and how it takes that up again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer

KEPT = "easyds.json"
"""Beside the trainer's own files, with what they do not hold."""


@dataclass(frozen=True)
class Kept:
    """What a trial remembers of its rows.

    seconds: it has trained. unjudged: training metrics of the row at this step, where it was saved
    before the row was judged, and so owes it. since_row: metrics of each forward pass since then.
    """

    seconds: float
    unjudged: dict[str, float] | None = None
    since_row: dict[str, list[float]] = field(default_factory=dict)


def save(trainer: Trainer, folder: Path, kept: Kept) -> None:
    """Write the weights a trial changed, and under trainer/ all it needs to go on."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = None
    if trainer.deepspeed is not None and trainer.deepspeed.zero_optimization_stage() == 3:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    options: dict[str, Any] = {"state_dict": state} if state is not None else {}
    if adapter_is_on(model):
        # "auto" would ask the hub whether the vocabulary grew.
        options["save_embedding_layers"] = False
    model.save_pretrained(folder, **options)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    trainer_folder = folder / "trainer"
    trainer_folder.mkdir()
    trainer._save_optimizer_and_scheduler(str(trainer_folder))
    trainer._save_rng_state(str(trainer_folder))
    trainer.state.save_to_json(str(trainer_folder / "trainer_state.json"))
    sums = {
        "logged_at": trainer._globalstep_last_logged,
        "loss": trainer._tr_loss.item(),
        "num_tokens": trainer._total_train_tokens,
    }
    content = json.dumps({"kept": asdict(kept), "sums": sums}, indent=1)
    (trainer_folder / KEPT).write_text(content, encoding="utf-8")


def restore(trainer: Trainer, trainer_folder: Path) -> Kept:
    """Go on adding up where `save` found the trainer; the rest it has restored by itself."""
    raw = json.loads((trainer_folder / KEPT).read_text(encoding="utf-8"))
    kept, sums = Kept(**raw["kept"]), raw["sums"]
    trainer._globalstep_last_logged = sums["logged_at"]
    trainer._tr_loss.fill_(sums["loss"])
    trainer._total_train_tokens = sums["num_tokens"]
    trainer._metrics["train"].update(kept.since_row)
    if kept.unjudged is not None:
        # It does so by itself at its first batch; a row that is owed is saved before that.
        trainer._load_rng_state(str(trainer_folder))
    return kept


def adapter_is_on(model: nn.Module) -> bool:
    """Whether a model is PEFT's, and so saves its adapter alone."""
    return hasattr(model, "peft_config")
