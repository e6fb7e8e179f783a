"""Held-out metrics of SFT and reward models, against numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from easyds_tune.algorithms.rm import held_out_accuracy
from easyds_tune.algorithms.row import TrialInputs
from easyds_tune.algorithms.sft import held_out_loss
from tests.trial.small import Algorithm, Lab

LabOf = Callable[[Algorithm], Lab]


class FirstTokenScore(nn.Module):
    """A reward model that scores a text by its first token."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(logits=input_ids[:, :1].float())


class Uniform(nn.Module):
    """A language model of four tokens that finds all of them equally likely."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 4))


def with_held_out(lab: Lab, columns: dict[str, list[list[int]]]) -> TrialInputs:
    trial = lab.trial()
    inputs = lab.bench.lend(trial)
    lab.bench.take_back(trial, inputs)
    inputs.held_out = Dataset.from_dict(columns)
    return inputs


def test_accuracy_counts_a_tie_as_half(lab_of: LabOf) -> None:
    """Margins 2, -1, 0 and 3: right are 1, 0, 1/2 and 1."""
    inputs = with_held_out(
        lab_of("rm"),
        {"chosen_ids": [[5, 9], [1], [4], [7, 7, 7]], "rejected_ids": [[3], [2], [4, 4], [4]]},
    )
    metrics = held_out_accuracy(FirstTokenScore(), inputs, lab_of("rm").trial())
    right = [1.0, 0.0, 0.5, 1.0]
    mean = sum(right) / 4
    assert metrics["eval/accuracy"] == mean == 0.625
    # Wilson's half width at z = 1: sqrt(0.625 * 0.375 / 4 + 1 / 64) / (1 + 1/4)
    assert metrics["eval/accuracy_stderr"] == pytest.approx(0.217945, abs=1e-6)
    assert metrics["eval/margin"] == 1.0
    losses = [math.log(1 + math.exp(-margin)) for margin in (2, -1, 0, 3)]
    assert metrics["eval/loss"] == pytest.approx(sum(losses) / 4)


def test_a_uniform_model_loses_the_log_of_its_vocabulary_on_learnt_tokens(lab_of: LabOf) -> None:
    inputs = with_held_out(
        lab_of("sft"),
        {"input_ids": [[0, 1, 2], [3, 1]], "labels": [[-100, -100, 2], [-100, 1]]},
    )
    metrics = held_out_loss(Uniform(), inputs, lab_of("sft").trial())
    assert metrics == {"eval/loss": pytest.approx(math.log(4))}


def test_without_held_out_records_nothing_is_reported(lab_of: LabOf) -> None:
    inputs = with_held_out(lab_of("sft"), {"input_ids": []})
    inputs.held_out = None
    assert held_out_loss(Uniform(), inputs, lab_of("sft").trial()) == {}
    assert held_out_accuracy(Uniform(), inputs, lab_of("sft").trial()) == {}
