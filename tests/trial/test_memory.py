"""What a worker holds is measured, not guessed."""

from __future__ import annotations

import pytest
import torch

from easyds_tune.trial.memory import memory_metrics, resident_mib


def test_resident_memory_grows_by_what_is_touched() -> None:
    before = resident_mib()
    block = torch.ones(64 * 2**20 // 4)  # 64 MiB
    assert resident_mib() - before == pytest.approx(64, abs=8)
    assert block.sum() == len(block)


def test_a_cpu_has_no_gpu_peak() -> None:
    assert memory_metrics(torch.device("cpu")).keys() == {"memory/resident_mib"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_peak_is_since_the_last_call() -> None:
    device = torch.device("cuda", 0)
    memory_metrics(device)
    block = torch.ones(64 * 2**20 // 4, device=device)
    del block
    assert memory_metrics(device)["memory/gpu_peak_mib"] >= 64
    assert memory_metrics(device)["memory/gpu_peak_mib"] < 64
