"""Padded batches of tokenised records for evaluation, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from datasets import Dataset
from torch import Tensor

from easyds_tune import progress
from easyds_tune.spec.sweep import TrialSpec


def held_out_batch(spec: TrialSpec) -> int:
    """Held-out records a forward pass: without gradients, twice as many as in training."""
    return 2 * spec.training.per_device_train_batch_size


def padded_batches(
    records: Dataset, columns: dict[str, int], batch_size: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Batches of (batch, length) tensors, padded on the right, with `attention_mask`.

    columns: name of a token column -> the value it is padded with. The mask follows the first.
    """
    for start in range(0, len(records), batch_size):
        chunk = records[start : start + batch_size]
        batch: dict[str, Tensor] = {}
        for name, padding in columns.items():
            rows = [torch.tensor(row, dtype=torch.long) for row in chunk[name]]
            batch[name] = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=padding
            ).to(device)
            if "attention_mask" not in batch:
                batch["attention_mask"] = torch.nn.utils.rnn.pad_sequence(
                    [torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True
                ).to(device)
        yield batch
        progress.made()
