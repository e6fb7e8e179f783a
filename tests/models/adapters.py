"""Small SFT adapters on disk, as `easyds-tune export` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

IDS = torch.tensor([[1, 77, 130, 9, 200, 2]])


def sft_adapter(folder: Path, base: Path, template: str | None = None, **settings: Any) -> Path:
    """A LoRA adapter of random weights that do something, with its tokenizer beside it."""
    options = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"]} | settings
    with torch.random.fork_rng():
        torch.manual_seed(7)
        plain = AutoModelForCausalLM.from_pretrained(base)
        model = moved(get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", **options)), 0.2)
    model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def moved(model: PeftModel, size: float) -> PeftModel:
    """The model with every trainable weight moved by about `size`."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += size * torch.randn_like(weight)
    return model


def edit_config(folder: Path, **changes: Any) -> Path:
    """The same adapter folder with other settings in its configuration."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
