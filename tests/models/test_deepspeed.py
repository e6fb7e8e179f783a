"""One process outlives many engines: a group of one, and nothing global after each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from transformers.integrations.deepspeed import (
    HfDeepSpeedConfig,
    is_deepspeed_zero3_enabled,
)

from easyds_tune.models.deepspeed import end_of_engine, start_distributed, tell_gradient_norm

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
