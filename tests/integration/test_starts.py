"""A part of the start grid that is always tested; all of it is tests/benchmarks/start_grid.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.start_grid import CONFIGS
from tests.integration.starting import ALGORITHMS, REJECTED, TRAINS, outcome
from tests.models.architectures import small_model

pytestmark = pytest.mark.slow

UNFORCED = CONFIGS["stage 2, torch's optimizer on CPU"]


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_schedule_that_reads_the_peak_rate_trains_with_an_offloaded_optimizer(kind: str) -> None:
    training = {"lr_scheduler_type": "polynomial"}
    assert outcome(kind, training=training, deepspeed=UNFORCED) == (TRAINS, "")


@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_a_mixture_of_experts_is_trained_and_judged(kind: str, tmp_path: Path) -> None:
    base = small_model("qwen3_moe", tmp_path)
    assert outcome(kind, base=base) == (TRAINS, "")


def test_an_encoder_becomes_a_reward_model_and_judges_long_replies(tmp_path: Path) -> None:
    reward = small_model("roberta", tmp_path)
    assert outcome("rm", base=reward) == (TRAINS, "")
    judged = {"reward": {"model_name_or_path": str(reward)}, "max_new_tokens": 12}
    assert outcome("sft", judge=judged) == (TRAINS, "")


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_section_that_the_spec_sets_is_rejected_alike(kind: str) -> None:
    what, why = outcome(kind, deepspeed=CONFIGS["optimizer section"])
    assert what == REJECTED
    assert why.startswith("deepspeed.optimizer: must be absent, training.learning_rate, ")
