"""The settings on which one PPO configuration has to hold its KL target: model, reward, scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.kl_target.stories import CONTINUES, scaled_reward

ITERATIONS, EVAL_STEPS, LAST = 60, 5, 20
"""Rollouts a trial, rollouts between two evaluations, and the last ones the KL is averaged over."""
ESTIMATORS = ("gae", "rloo", "grpo")
GENERATIONS = 4
"""Replies to a prompt for the estimators that compare them."""


@dataclass(frozen=True)
class Setting:
    """A world and a reward in it; rule None is the bundled tutor with its own reward model."""

    rule: str | None
    factor: float


SETTINGS = {
    "stories, dog": Setting("dog", 1.0),
    "stories, dog × 0.1": Setting("dog", 0.1),
    "stories, happy × 30": Setting("happy", 30.0),
    "tutor × 10": Setting(None, 10.0),
    "tutor": Setting(None, 1.0),
}
"""`tutor` is the demo itself: it is not part of the promise, and must not fall."""
ASKED = tuple(name for name in SETTINGS if name != "tutor")


def overrides(name: str, estimator: str, world: Path, stories: Path) -> list[str]:
    """What the demo's spec is changed by; all that is not named here is the demo's."""
    setting = SETTINGS[name]
    source = Path("data/models/tiny-reward") if setting.rule is None else world / setting.rule
    reward = source
    if setting.factor != 1:
        reward = scaled_reward(source, world / f"{source.name}-x{setting.factor:g}", setting.factor)
    changed = [
        f"training.max_steps={ITERATIONS}",
        f"training.eval_steps={EVAL_STEPS}",
        f"algorithm.reward.model_name_or_path={reward}",
        f"judge.reward.model_name_or_path={reward}",
        f"algorithm.advantage_estimator={estimator}",
    ]
    if estimator != "gae":
        changed.append(f"algorithm.num_generations={GENERATIONS}")
    if setting.rule is not None:
        changed += [
            "algorithm.missing_eos_penalty=0",
            f"model.model_name_or_path={stories}",
            f"data.chat_template='{CONTINUES}'",
            f"data.train={world}/prompts.jsonl",
            f"judge.prompts={world}/judge.jsonl",
        ]
    return changed
