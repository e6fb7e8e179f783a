"""The judge on the bundled demo: its tutor, its reward model, its held-out prompts."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from easyds_tune.data.read import read
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.judge.judge import Judge
from easyds_tune.models.generate import end_token_ids
from easyds_tune.models.load import load_tokenizer
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.spec.judge import JudgeSpec

DATA = Path(__file__).parents[2] / "data"
TUTOR, REWARD = DATA / "models" / "tiny-tutor", DATA / "models" / "tiny-reward"


@pytest.mark.skipif(
    not (TUTOR.is_dir() and REWARD.is_dir()), reason="make_models.py has not been run"
)
def test_the_bundled_tutor_is_judged_by_the_bundled_reward_model() -> None:
    spec = JudgeSpec(
        prompts=str(DATA / "easyds" / "judge_prompts.jsonl"),
        reward={"model_name_or_path": str(REWARD)},
        max_new_tokens=48,
    )
    tutor = AutoModelForCausalLM.from_pretrained(TUTOR, dtype=torch.float32)
    tokenizer = load_tokenizer(str(TUTOR))
    judge = Judge(
        spec,
        read(spec.prompts, "prompts").records,
        Encoder(tokenizer, choose_template(tokenizer, None)),
        RewardModel(spec.reward, torch.device("cpu")),
        end_token_ids=end_token_ids(tutor, tokenizer),
    )
    evaluation = judge.evaluate(tutor, lambda: nullcontext(tutor))
    assert evaluation.metrics["eval/kl"] == 0
    assert evaluation.metrics["eval/finished"] > 0.5
    assert evaluation.metrics["eval/reward_stderr"] > 0
    assert all(math.isfinite(value) for value in evaluation.metrics.values())
    assert all(sample.reply for sample in evaluation.samples)
