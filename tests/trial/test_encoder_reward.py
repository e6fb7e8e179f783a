"""A reward model on an encoder: its fresh pooler and head train, travel and are proven."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from easyds_tune.deploy.card import ModelCard
from easyds_tune.deploy.export import export
from easyds_tune.models.load import load_model
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.spec.judge import RewardModelRewardSpec
from tests.models.small_models import bert, deberta
from tests.trial.small import CPU, Lab, bits, sweep_spec

CARD = ModelCard(
    sweep="small", algorithm="rm", trial="000", step=3, params={}, metrics={}, data_hash="ab" * 32
)


@pytest.mark.parametrize(
    ("make", "pooler"), [(deberta, "pooler.dense"), (bert, "bert.pooler.dense")]
)
def test_a_reward_model_on_an_encoder_is_exported_whole(
    make: object, pooler: str, tmp_path: Path
) -> None:
    base = make(tmp_path / "base")  # type: ignore[operator]
    spec = sweep_spec(
        "rm", base=base, algorithm={"max_length": 400}, training={"learning_rate": 5e-3}
    )
    lab = Lab(spec, tmp_path / "trials")
    fresh = lab.run(steps=1, model__lora_dropout=0.1)
    assert bits(lab.run(steps=1, model__lora_dropout=0.1)) == bits(fresh)
    checkpoint = fresh[-1].checkpoint.path

    saved = load_file(checkpoint / "adapter_model.safetensors")
    trained = saved[f"base_model.model.{pooler}.weight"]
    drawn = load_model(spec.model, "reward", CPU).get_submodule(pooler).weight
    assert not torch.equal(trained, drawn)
    assert not any("lora" in name and pooler in name for name in saved)

    texts = [({"role": "user", "content": "栈和队列有什么区别？"},)] * 2, ["你来想想。", "记住。"]
    scores = []
    for merge in (False, True):
        to = tmp_path / f"export-{merge}"
        report = export(checkpoint, spec.model, "reward", to, merge=merge, card=CARD)
        assert report.largest_difference <= report.tolerance
        model = RewardModel(RewardModelRewardSpec(model_name_or_path=str(to)), CPU)
        scores.append(model.score(*texts))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)
