"""Supervised fine-tuning: TRL's SFTTrainer under DeepSpeed, on tokenised conversations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from easyds_tune.algorithms.batches import held_out_batch, padded_batches
from easyds_tune.algorithms.row import Row, TrialInputs
from easyds_tune.algorithms.stopping import StopAsked, never
from easyds_tune.algorithms.trl_loop import TokenisedData, rows
from easyds_tune.spec.algorithm import SFTSpec
from easyds_tune.spec.sweep import TrialSpec


class _Trainer(TokenisedData, SFTTrainer):
    pass


def train(
    spec: TrialSpec,
    inputs: TrialInputs,
    resume_from: Path | None = None,
    stop_asked: StopAsked = never,
) -> Iterator[Row]:
    """Train on `inputs.train` with columns input_ids and labels (-100 where nothing is learnt).

    Reports `eval/loss`, the mean loss per learnt token, where records are held out.
    """
    sft = spec.algorithm
    assert isinstance(sft, SFTSpec)
    judged_in_full = spec.model.lora_r is None and spec.judge is not None
    return rows(
        _Trainer,
        SFTConfig,
        spec,
        inputs,
        config={"loss_type": sft.loss_type},
        reference=inputs.load_reference() if judged_in_full else None,
        evaluate=lambda model: held_out_loss(model, inputs, spec),
        resume_from=resume_from,
        stop_asked=stop_asked,
    )


def held_out_loss(model: nn.Module, inputs: TrialInputs, spec: TrialSpec) -> dict[str, float]:
    """Cross-entropy per learnt token in nats over the held-out records; nothing without them."""
    if inputs.held_out is None:
        return {}
    nats, tokens = record_nats(
        model, inputs.held_out, inputs.tokenizer.pad_token_id, held_out_batch(spec), inputs.device
    )
    return {"eval/loss": math.fsum(nats) / max(math.fsum(tokens), 1)}


@torch.no_grad()
def record_nats(
    model: nn.Module, records: Dataset, pad_token_id: int, batch_size: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Cross-entropy summed over the learnt tokens of each record in nats, and their number."""
    nats: list[float] = []
    tokens: list[float] = []
    columns = {"input_ids": pad_token_id, "labels": -100}
    for batch in padded_batches(records, columns, batch_size, device):
        logits: Tensor = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits  # (batch, length, vocabulary)
        labels = batch["labels"][:, 1:]
        loss = nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels.flatten(), reduction="none"
        )  # 0 where -100
        nats += loss.view_as(labels).double().sum(dim=1).tolist()
        tokens += (labels != -100).double().sum(dim=1).tolist()
    return nats, tokens
