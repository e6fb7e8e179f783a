"""One trial through preflight and its first step, in this process: it trains or is rejected."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from easyds_tune.errors import ProblemsError
from easyds_tune.spec.load import validate
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.sweep.single import train_single

DATA = Path(__file__).parents[2] / "data"
TUTOR = DATA / "models" / "tiny-tutor"
REWARD = DATA / "models" / "tiny-reward"
ALGORITHMS = ("sft", "rm", "dpo", "ppo")
TRAINS, REJECTED, FAILS = "trains", "rejected", "FAILS"


def start_spec(
    kind: str, *, base: Path = TUTOR, reward: Path = REWARD, **changes: Any
) -> SweepSpec:
    """One step of one trial on a few records; `changes` are merged into the sections."""
    judged = {"model_name_or_path": str(reward)}
    file = {"sft": "sft", "rm": "preferences", "dpo": "preferences", "ppo": "prompts"}[kind]
    algorithm: dict[str, Any] = {"type": kind, "max_length": 96}
    if kind == "ppo":
        algorithm = {
            "type": "ppo", "reward": judged, "rollout_batch_size": 4, "response_length": 6,
            "num_ppo_epochs": 1,
        }  # fmt: skip
    raw: dict[str, Any] = {
        "name": "start",
        "algorithm": algorithm,
        "model": {"model_name_or_path": str(base), "dtype": "float32", "lora_r": 4},
        "data": {"train": {"path": str(DATA / "easyds" / f"{file}.jsonl"), "limit": 24}},
        "training": {
            "max_steps": 1, "eval_steps": 1, "learning_rate": 1e-3,
            "per_device_train_batch_size": 4,
        },
    }  # fmt: skip
    if kind != "rm":
        raw["judge"] = {
            "prompts": str(DATA / "easyds" / "judge_prompts.jsonl"), "num_prompts": 2,
            "max_new_tokens": 6, "reward": judged,
        }  # fmt: skip
    for section, change in changes.items():
        raw[section] = {**raw.get(section, {}), **change} if isinstance(change, dict) else change
    return validate(raw)


def outcome(kind: str, **changes: Any) -> tuple[str, str]:
    """TRAINS, REJECTED with the problems, or FAILS with the failure that a trial ends with."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "trial"
        try:
            spec = start_spec(kind, **changes)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                code = train_single(spec, {}, folder)
        except ProblemsError as error:
            assert not folder.exists()
            return REJECTED, str(error)
        if code == 0:
            return TRAINS, ""
        failure = json.loads((folder / "failure.json").read_text(encoding="utf-8"))
        return FAILS, f"{failure['type']}: {failure['message']}"
