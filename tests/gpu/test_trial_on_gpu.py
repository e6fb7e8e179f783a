"""A real trial on a CUDA device: bfloat16, DeepSpeed over NCCL, and an enforced share of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easyds_tune.spec.load import validate
from easyds_tune.spec.sweep import trial_spec
from easyds_tune.trial.records import read_records
from easyds_tune.trial.run import run_trial
from easyds_tune.trial.workbench import Workbench

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


PPO = {
    "type": "ppo",
    "reward": {"model_name_or_path": str(ROOT / "data/models/tiny-reward")},
    "rollout_batch_size": 16,
    "response_length": 16,
    "num_ppo_epochs": 2,
}


@pytest.mark.parametrize(
    ("algorithm", "data"),
    [({"type": "dpo", "max_length": 128}, "preferences.jsonl"), (PPO, "prompts.jsonl")],
    ids=["dpo", "ppo"],
)
def test_a_trial_trains_in_bfloat16_and_starts_at_zero_kl(
    tmp_path: Path, algorithm: dict[str, Any], data: str
) -> None:
    sweep = validate(
        {
            "name": "gpu",
            "algorithm": algorithm,
            "model": {"model_name_or_path": str(ROOT / "data/models/tiny-tutor"), "lora_r": 8},
            "data": {"train": {"path": str(ROOT / "data/easyds" / data), "limit": 64}},
            "judge": {
                "prompts": str(ROOT / "data/easyds/judge_prompts.jsonl"),
                "num_prompts": 8,
                "max_new_tokens": 16,
                "reward": {"model_name_or_path": str(ROOT / "data/models/tiny-reward")},
            },
            "training": {"max_steps": 0},
        }
    )
    records = read_records(sweep.data, sweep.algorithm.type, sweep.judge)
    bench = Workbench(sweep, records, torch.device("cuda", 0))
    start = next(run_trial(trial_spec(sweep, "000", {}), bench, tmp_path / "start"))
    assert start.metrics["eval/kl"] == 0.0

    longer = validate(
        sweep.model_dump() | {"training": {"max_steps": 4, "eval_steps": 4, "learning_rate": 1e-3}}
    )
    report = next(run_trial(trial_spec(longer, "001", {}), bench, tmp_path / "trained"))
    assert report.metrics["eval/kl"] > 0.0
    assert report.metrics["memory/gpu_peak_mib"] > 0.0


def test_a_share_of_a_gpu_is_a_limit_and_not_a_promise() -> None:
    device = torch.device("cuda", 0)
    torch.cuda.set_per_process_memory_fraction(0.25, device)
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(total * 0.3), dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
