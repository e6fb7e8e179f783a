"""A landscape small enough to compute by hand, and a spec that searches it."""

from __future__ import annotations

from typing import Any

from easyds_tune.simulation.curves import Curves
from easyds_tune.simulation.modelled import ModelledLandscape
from easyds_tune.spec.sweep import SweepSpec

RATE = "training.learning_rate"
LOSS = "algorithm.loss_type"

MODELLED: dict[str, Any] = {
    "space": {RATE: {"low": 1e-4, "high": 1e-2, "log": True}, LOSS: ["sigmoid", "hinge"]},
    "max_steps": 9,
    "tokens_per_step": 100,
    "seconds_per_step": 2.0,
    "start": -0.1,
    "gain": {"base": 0.5, RATE: {"best": 0.5, "width": 0.5, "drop": 0.4}, LOSS: [0.0, 0.2]},
    "log_steps": {"base": 0.0},
    "log_kl": {"base": -2.0, RATE: {"slope": 2.0}},
    "noise": {"reward_stderr": 0.08, "kl_relative_stderr": 0.1, "prompts": 128},
}


def curves(judge: int = 0, **changes: Any) -> Curves:
    """The landscape's curves, as one judge sees them."""
    return Curves(ModelledLandscape.read(MODELLED | changes), judge)


def sweep_spec(**changes: Any) -> SweepSpec:
    """A sweep of nine steps with an evaluation at each third."""
    raw: dict[str, Any] = {
        "name": "simulated",
        "algorithm": {"type": "dpo"},
        "model": {"model_name_or_path": "unused"},
        "data": {"train": "unused.jsonl"},
        "judge": {
            "prompts": "unused.jsonl",
            "num_prompts": 32,
            "reward": {"model_name_or_path": "unused"},
        },
        "training": {"max_steps": 9, "eval_steps": 1, "learning_rate": 1e-3},
        "search_space": MODELLED["space"],
        "search": {"num_trials": 9, "sampler": "random"},
        "bounds": {"eval/kl": {"max": 0.5}},
        "resources": {"gpus_per_trial": 0},
    }
    return SweepSpec.model_validate(raw | changes)
