"""A reward model on the policy's base: one copy of the weights, and neither sees the other."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from easyds_tune.data.records import user
from easyds_tune.models.deepspeed import release, start_distributed
from easyds_tune.models.generate import without_adapter
from easyds_tune.models.lora import give_back
from easyds_tune.rewards.reward_model import RewardModel
from easyds_tune.rewards.shared_base import shares_base
from easyds_tune.spec.judge import RewardModelRewardSpec
from tests.models.small_models import SIZES, qwen, saved
from tests.rewards.adapters import model_spec, reward_adapter

CPU = torch.device("cpu")
PROMPTS = [(user("What is a queue?"),), (user("什么是栈？"),), (user("x"),)]
REPLIES = ["What would you try first?", "你来想想。", ""]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def reward(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RewardModelRewardSpec:
    return reward_adapter(base, tmp_path_factory.mktemp("reward"))


def with_policy_adapter(model: torch.nn.Module) -> PeftModel:
    torch.manual_seed(2)
    return get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def train(policy: torch.nn.Module, steps: int = 2) -> None:
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.05)
    for _ in range(steps):
        policy(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def scores_of(reward: RewardModel) -> Tensor:
    return reward.score(PROMPTS, REPLIES)


def test_scores_are_those_of_a_reward_model_of_its_own_whatever_the_policy_does(
    base: Path, reward: RewardModelRewardSpec
) -> None:
    expected = scores_of(RewardModel(reward, CPU))
    assert len(set(expected.tolist())) == 3
    causal = AutoModelForCausalLM.from_pretrained(base)
    shared = RewardModel(reward, CPU, base=causal)
    assert torch.equal(scores_of(shared), expected)
    for _ in range(2):  # two trials on one base
        policy = with_policy_adapter(causal)
        train(policy)
        assert torch.equal(scores_of(shared), expected)
        with without_adapter(policy):
            assert torch.equal(scores_of(shared), expected)
        give_back(policy)
        assert torch.equal(scores_of(shared), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_coarser_types_give_the_same_scores_too(
    base: Path, reward: RewardModelRewardSpec, dtype: torch.dtype
) -> None:
    causal = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    shared = scores_of(RewardModel(reward, CPU, dtype, base=causal))
    assert torch.equal(shared, scores_of(RewardModel(reward, CPU, dtype)))


@pytest.mark.parametrize(
    "model",
    [
        LlamaForCausalLM(LlamaConfig(**SIZES, eos_token_id=2)),
        GPT2LMHeadModel(GPT2Config(**SIZES, eos_token_id=2, bos_token_id=1)),
    ],
    ids=["llama", "gpt2"],
)
def test_other_architectures_share_their_base_too(model: Any, tmp_path: Path) -> None:
    base = saved(model, tmp_path / "base")
    reward = reward_adapter(base, tmp_path / "reward")
    assert shares_base(reward, model_spec(base))
    causal = AutoModelForCausalLM.from_pretrained(base)
    shared = RewardModel(reward, CPU, base=causal)
    train(with_policy_adapter(causal))
    assert torch.equal(scores_of(shared), scores_of(RewardModel(reward, CPU)))


def test_the_frozen_weights_are_in_memory_once(base: Path, reward: RewardModelRewardSpec) -> None:
    causal = AutoModelForCausalLM.from_pretrained(base)
    classifier = RewardModel(reward, CPU, base=causal)._model.get_base_model()
    trunk = {
        name: weight
        for name, weight in classifier.base_model.named_parameters()
        if "lora_" not in name
    }
    own = {weight.data_ptr() for weight in causal.base_model.parameters()}
    assert len(trunk) == len(list(causal.base_model.parameters())) == len(own)
    assert {weight.data_ptr() for weight in trunk.values()} == own
    buffers = {buffer.data_ptr() for buffer in causal.base_model.buffers()}
    assert {buffer.data_ptr() for buffer in classifier.base_model.buffers()} == buffers


def test_the_policy_does_not_notice_the_reward_model(
    base: Path, reward: RewardModelRewardSpec
) -> None:
    def trained_logits(with_reward: bool) -> Tensor:
        causal = AutoModelForCausalLM.from_pretrained(base).train()
        before = [
            (name, weight.requires_grad, id(weight)) for name, weight in causal.named_parameters()
        ]
        config = causal.config.to_dict()
        if with_reward:
            judge = RewardModel(reward, CPU, base=causal)
            scores_of(judge)
        after = [
            (name, weight.requires_grad, id(weight)) for name, weight in causal.named_parameters()
        ]
        assert after == before
        assert causal.config.to_dict() == config
        assert all(module.training for module in causal.modules())
        policy = with_policy_adapter(causal)
        train(policy)
        if with_reward:
            scores_of(judge)
        return policy.eval()(IDS).logits

    assert torch.equal(trained_logits(True), trained_logits(False))


@pytest.fixture
def zero3_policy(
    base: Path, reward: RewardModelRewardSpec
) -> Iterator[tuple[RewardModel, PeftModel, Any]]:
    """A reward model on a base that ZeRO-3 then shards, the policy on it, and its engine."""
    start_distributed(CPU)
    causal = AutoModelForCausalLM.from_pretrained(base)
    shared = RewardModel(reward, CPU, base=causal)
    policy = with_policy_adapter(causal)
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=policy,
        optimizer=torch.optim.AdamW(weights, lr=0.05),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    yield shared, policy, engine
    release(engine)
    gc.collect()


def test_under_zero_3_scores_are_the_same_where_the_weights_are_gathered(
    zero3_policy: tuple[RewardModel, PeftModel, Any], reward: RewardModelRewardSpec
) -> None:
    shared, policy, engine = zero3_policy
    expected = scores_of(RewardModel(reward, CPU))
    for _ in range(2):
        with deepspeed.zero.GatheredParameters(list(policy.parameters())):
            assert torch.equal(scores_of(shared), expected)
        assert all(weight.numel() == 0 for weight in policy.get_base_model().lm_head.parameters())
        engine.backward(engine(input_ids=IDS, labels=IDS).loss)
        engine.step()


def test_an_adapter_of_the_policys_base_shares_it(
    base: Path, reward: RewardModelRewardSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shares_base(reward, model_spec(base))
    # A folder has no revisions, and may be named in several ways.
    assert shares_base(reward, model_spec(base, revision="v2"))
    monkeypatch.chdir(base.parent)
    assert shares_base(reward, model_spec(Path(base.name)))
    monkeypatch.setenv("HOME", str(base.parent))
    assert shares_base(reward, model_spec(Path("~") / base.name))


def test_a_base_that_training_changes_is_not_shared(
    base: Path, reward: RewardModelRewardSpec
) -> None:
    assert not shares_base(reward, model_spec(base, lora_r=None))


def test_another_base_is_not_shared(
    base: Path, reward: RewardModelRewardSpec, tmp_path: Path
) -> None:
    assert not shares_base(reward, model_spec(qwen(tmp_path / "twin")))


def test_a_whole_reward_model_has_a_base_of_its_own(base: Path) -> None:
    assert not shares_base(RewardModelRewardSpec(model_name_or_path=str(base)), model_spec(base))


@pytest.mark.parametrize("change", [{"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_an_adapter_that_writes_into_its_base_is_not_shared(
    base: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert not shares_base(reward_adapter(base, tmp_path, **change), model_spec(base))


def test_a_hub_name_is_the_same_base_at_the_same_revision_only(tmp_path: Path) -> None:
    text = (
        '{"task_type": "SEQ_CLS", "peft_type": "LORA", "revision": "v1",'
        ' "base_model_name_or_path": "someone/model"}'
    )
    (tmp_path / "adapter_config.json").write_text(text)
    reward = RewardModelRewardSpec(model_name_or_path=str(tmp_path))
    for revision in (None, "v2"):
        assert not shares_base(reward, model_spec(Path("someone/model"), revision=revision))
