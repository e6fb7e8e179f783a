"""What makes the comparison of both PPOs fair: the same tokens, sizes and number of updates."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from easyds_tune.models.load import load_tokenizer
from easyds_tune.spec.check import spec_problems


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts are no package; they import each other by file name."""
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.pop(0)


@pytest.fixture
def models(scripts: None) -> ModuleType:
    return import_module("ppo_models")


def test_made_up_words_have_the_same_ids_after_decoding(models: ModuleType, tmp_path: Path) -> None:
    models.word_tokenizer(32_000).save_pretrained(tmp_path)
    # As both sides load it: by the class that Transformers has for the model's type.
    Qwen2Config(vocab_size=32_000).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    ids = random.Random(0).choices(range(258, 32_000), k=500)
    assert len(tokenizer) == 32_000
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


@pytest.mark.parametrize(
    ("sizes", "millions"), [("ABOUT_100M", 100), ("QWEN2_HALF_B", 494)], ids=["100m", "half-b"]
)
def test_the_random_models_have_the_size_they_are_named_after(
    models: ModuleType, sizes: str, millions: int
) -> None:
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**getattr(models, sizes)))
    assert round(model.num_parameters() / 1e6) == millions


def test_our_side_is_a_valid_sweep_with_one_update_an_epoch(scripts: None, tmp_path: Path) -> None:
    task = import_module("ppo_vs_trl").speed_task(tmp_path)
    sweep = import_module("ppo_ours").sweep_of(task)
    # Without a judge there is nothing to compare trials by, and a benchmark compares none.
    (problem,) = spec_problems(sweep)
    assert problem.startswith("objective.metric: train/loss")
    assert sweep.training.effective_batch == sweep.algorithm.rollout_batch_size == task.replies
