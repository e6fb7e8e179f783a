"""A DeepSpeed config of the user's is read by DeepSpeed itself before the start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.models.load import load_skeleton
from easyds_tune.sweep import check_deepspeed
from easyds_tune.sweep.check_deepspeed import deepspeed_problems
from tests.integration.starting import start_spec

OFFLOAD = {"stage": 2, "offload_optimizer": {"device": "cpu"}}


def problems(zero: dict[str, Any]) -> list[str]:
    spec = start_spec("sft", deepspeed={"zero_optimization": zero})
    return deepspeed_problems(spec, load_skeleton(spec.model, "causal"))


def test_a_setting_that_zero_does_not_have_is_refused() -> None:
    [problem] = problems({"stage": 2, "overlap_com": True})
    assert problem.startswith("deepspeed.zero_optimization.overlap_com: must be what DeepSpeed ")


def test_kernels_for_gpus_are_refused_where_none_is_used() -> None:
    [problem] = problems({"stage": 3, "zero_quantized_weights": True})
    assert problem.startswith("deepspeed.zero_optimization.zero_quantized_weights: must be off ")


def test_what_deepspeed_takes_is_taken() -> None:
    assert problems({"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": True}) == []
    assert problems(OFFLOAD) == []


def test_offloading_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_deepspeed.shutil, "which", lambda name: None)
    [problem] = problems(OFFLOAD)
    assert problem.startswith("deepspeed.zero_optimization.offload_optimizer: must be absent where")
    assert "install a C++ compiler and ninja" in problem


def test_a_build_that_was_killed_is_named_instead_of_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "cpu_adam" / "lock"
    lock.parent.mkdir()
    lock.touch()
    assert problems(OFFLOAD) == []  # another process may be building
    os.utime(lock, (1, 1))
    [problem] = problems(OFFLOAD)
    assert f"got {lock}, " in problem
    assert "remove that file if no build runs" in problem
