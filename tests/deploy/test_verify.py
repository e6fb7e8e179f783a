"""The comparison of logits: what it measures, and that it sees what is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

from easyds_tune.deploy.verify import (
    compared_sequences,
    largest_difference,
    load_as_stranger,
    rms_difference,
)
from tests.deploy.tiny import causal_base, qwen_config


def test_differences_are_the_largest_and_the_root_mean_square() -> None:
    got = [torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, 5.0]])]
    wanted = [torch.tensor([[1.0, 5.0]]), torch.tensor([[1.0, 5.0]])]
    assert largest_difference(got, wanted) == 4.0
    assert rms_difference(got, wanted) == 2.5  # sqrt((0 + 9 + 16 + 0) / 4)


def test_nan_is_no_match() -> None:
    assert math.isnan(largest_difference([torch.tensor([math.nan])], [torch.tensor([0.0])]))


def test_sequences_fit_the_vocabulary_and_the_context() -> None:
    model = Qwen2ForCausalLM(qwen_config(max_position_embeddings=10))
    sequences = compared_sequences(model)
    assert [len(sequence) for sequence in sequences] == [1, 7, 10, 10]
    assert all(0 <= token < 258 for sequence in sequences for token in sequence)
    assert sequences == compared_sequences(model)


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    base = causal_base(tmp_path)
    before = torch.random.get_rng_state()
    loaded = load_as_stranger(str(base), "causal", dtype=torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not loaded.training
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(loaded.lm_head.weight, plain.lm_head.weight)
