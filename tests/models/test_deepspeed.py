"""One process outlives many engines: a group of one, and nothing global after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM
from transformers.integrations.deepspeed import (
    HfDeepSpeedConfig,
    is_deepspeed_zero3_enabled,
)

from easyds_tune.models.deepspeed import (
    end_of_engine,
    gathered,
    release,
    start_distributed,
    start_engine,
    tell_gradient_norm,
)
from easyds_tune.models.generate import Sampling, generate
from easyds_tune.spec.deepspeed import preset
from easyds_tune.spec.training import TrainingSpec

ZERO3 = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}


def test_the_group_has_one_rank_and_may_be_asked_for_twice() -> None:
    for _ in range(2):
        start_distributed(torch.device("cpu"))
        assert torch.distributed.get_world_size() == 1
        assert torch.distributed.get_backend() == "gloo"


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_an_engine_forgets_what_is_global(tmp_path: Path, fails: bool) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "file").write_text("left")

    def use() -> None:
        with end_of_engine(scratch):
            use.config = HfDeepSpeedConfig(ZERO3)  # type: ignore[attr-defined]
            PartialState(cpu=True)
            assert is_deepspeed_zero3_enabled()
            if fails:
                raise RuntimeError("in training")

    if fails:
        with pytest.raises(RuntimeError, match="in training"):
            use()
    else:
        use()
    assert not is_deepspeed_zero3_enabled()
    assert AcceleratorState._shared_state == PartialState._shared_state == {}
    assert not scratch.exists()


def engine_of(optimizer: object, *, zero: bool = False) -> SimpleNamespace:
    """An engine's outside: a module with gradients (3, 4), and a step that clips them away."""
    module = nn.Linear(2, 1, bias=False)
    module.weight.grad = torch.tensor([[3.0, 4.0]])

    def take_step(lr_kwargs: object) -> None:
        module.weight.grad = None

    return SimpleNamespace(
        optimizer=optimizer, zero_optimization=lambda: zero, module=module,
        _take_model_step=take_step, _global_grad_norm=None,
    )  # fmt: skip


def test_an_engine_without_zero_tells_the_norm_before_its_step() -> None:
    engine = engine_of(object())
    tell_gradient_norm(engine)
    engine._take_model_step(None)
    assert engine._global_grad_norm == 5.0
    assert engine.module.weight.grad is None


def test_an_engine_that_tells_its_norm_is_left_alone() -> None:
    for engine in (
        engine_of(SimpleNamespace(_global_grad_norm=0.0)),
        engine_of(object(), zero=True),
    ):
        step = engine._take_model_step
        tell_gradient_norm(engine)
        assert engine._take_model_step is step


# ---- engines of our own ---------------------------------------------------------------------

IDS = torch.tensor([[5, 9, 200, 7]])
MakePolicy = Callable[..., Qwen2ForCausalLM]


@contextmanager
def running(module: nn.Module, config: dict[str, Any], **training: Any) -> Iterator[Any]:
    """An engine, let go of at the end."""
    start_distributed(torch.device("cpu"))
    with end_of_engine():
        engine = start_engine(module, config, TrainingSpec(max_steps=1, **training))
        try:
            yield engine
        finally:
            release(engine)


def test_an_engine_takes_its_numbers_from_the_training_settings() -> None:
    settings = {
        "per_device_train_batch_size": 3, "gradient_accumulation_steps": 5, "max_grad_norm": 0.7,
        "learning_rate": 2e-3, "adam_beta1": 0.8, "adam_beta2": 0.95, "weight_decay": 0.1,
        "training_arguments": {"adam_epsilon": 1e-6},
    }  # fmt: skip
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    module[2].requires_grad_(False)
    with running(module, preset(0), **settings) as engine:
        assert engine.train_micro_batch_size_per_gpu() == 3
        assert engine.gradient_accumulation_steps() == 5
        assert engine.train_batch_size() == 15
        assert engine.gradient_clipping() == 0.7
        assert not engine.bfloat16_enabled()
        matrices, vectors = engine.optimizer.param_groups
        for group in (matrices, vectors):
            assert (group["lr"], group["betas"], group["eps"]) == (2e-3, (0.8, 0.95), 1e-6)
        # Norms and biases are not decayed; what is frozen is not the optimizer's.
        assert [tuple(weight.shape) for weight in matrices["params"]] == [(3, 2)]
        assert [tuple(weight.shape) for weight in vectors["params"]] == [(3,), (3,), (3,)]
        assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)


def test_a_config_of_the_users_own_keeps_what_it_says() -> None:
    config = {
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000},
        "gradient_clipping": 0.25,
    }
    with running(nn.Linear(2, 1), config) as engine:
        assert engine.zero_optimization_stage() == 2
        assert engine.zero_reduce_bucket_size() == 1000
        assert engine.gradient_clipping() == 0.25
        assert engine.train_micro_batch_size_per_gpu() == 8


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_update_is_torchs_own_adamw_after_clipping(stage: int) -> None:
    """Two updates of a linear layer, against the same by hand with torch alone."""
    torch.manual_seed(0)
    inputs, aims = torch.randn(4, 3), torch.randn(4, 1)
    plain = nn.Linear(3, 1, bias=False)
    module = nn.Linear(3, 1, bias=False)
    module.load_state_dict(plain.state_dict())
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.01)
    settings = {
        "learning_rate": 0.1, "weight_decay": 0.01, "max_grad_norm": 0.5,
        "per_device_train_batch_size": 4,
    }  # fmt: skip
    with running(module, preset(stage), **settings) as engine:
        for _ in range(2):
            (plain(inputs) - aims).square().mean().backward()
            norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            assert norm > 0.5
            optimizer.step()
            optimizer.zero_grad()
            engine.backward((engine(inputs) - aims).square().mean())
            engine.step()
            assert float(engine.get_global_grad_norm()) == pytest.approx(norm.item(), rel=1e-5)
    torch.testing.assert_close(module.weight, plain.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", [0, 2])
def test_below_stage_3_a_model_is_whole_anyway(stage: int) -> None:
    with running(nn.Linear(2, 1), preset(stage)) as engine, gathered(engine) as module:
        assert module is engine.module
        with gathered(engine) as again:
            assert again is module


@pytest.mark.parametrize("fails", [False, True])
def test_gathered_shards_are_whole_inside_and_shards_again_afterwards(
    fails: bool, make_policy: MakePolicy
) -> None:
    """Whole, bit for bit, and without hooks: it generates as the plain model does."""
    policy = make_policy()
    wanted = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
    written = drawn_by(policy)
    with running(policy, preset(3), learning_rate=0.01) as engine:
        assert all(weight.numel() == 0 for weight in policy.parameters())
        with ExitStack() as stack:
            if fails:
                stack.enter_context(pytest.raises(KeyError))
            with gathered(engine) as module:
                for name, weight in module.named_parameters():
                    assert torch.equal(weight, wanted[name]), name
                parts = [part for part in module.modules() if part is not module]
                assert not any(part._forward_pre_hooks or part._forward_hooks for part in parts)
                assert drawn_by(module) == written
                if fails:
                    raise KeyError("in a rollout")
        assert all(weight.numel() == 0 for weight in policy.parameters())
        # Its hooks are back: it trains, and what it then gathers has moved.
        engine.backward(engine(input_ids=IDS, labels=IDS).loss)
        engine.step()
        with gathered(engine) as module:
            assert not any(
                torch.equal(weight, wanted[name])
                for name, weight in module.named_parameters()
                if name.endswith("proj.weight")
            )


def drawn_by(model: nn.Module) -> list[list[int]]:
    sampling = Sampling(max_new_tokens=6, seed=3)
    return generate(model, [[5, 6], [7]], sampling, eos_token_ids=[1], pad_token_id=0)


def test_letting_go_of_no_engine_does_nothing() -> None:
    release(None)


def test_an_engine_that_was_let_go_leaves_no_gradients() -> None:
    module = nn.Linear(2, 1)
    seen: list[Tensor] = []
    for stage in (0, 2):
        with running(module, preset(stage), per_device_train_batch_size=1) as engine:
            engine.backward(engine(torch.ones(1, 2)).sum())
            engine.step()
            seen.append(module.weight.detach().clone())
    assert not torch.equal(seen[0], seen[1])
    assert all(weight.grad is None for weight in module.parameters())


def test_an_offloaded_optimizer_trains_with_torchs_where_the_config_says_so() -> None:
    zero = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    config = {"zero_optimization": zero, "zero_force_ds_cpu_optimizer": False}
    module = nn.Linear(2, 1)
    before = module.weight.detach().clone()
    with running(module, config, learning_rate=0.1, per_device_train_batch_size=1) as engine:
        engine.backward(engine(torch.ones(1, 2)).sum())
        engine.step()
        assert not torch.equal(engine.module.weight, before)
