"""What each algorithm reports at an evaluation: what may be an objective, a cost or a bound."""

from __future__ import annotations

from easyds_tune.spec.searched import values_of
from easyds_tune.spec.sweep import SweepSpec

JUDGED = ["eval/reward", "eval/kl", "eval/kl_k1", "eval/kl_sequence", "eval/length",
          "eval/distinct_2"]  # fmt: skip
OF_THE_JUDGE = [*JUDGED, "eval/reward_stderr", "eval/kl_stderr", "eval/finished"]
"""All that the judge reports."""
METRICS = {
    "sft": [*JUDGED, "eval/loss"],
    "dpo": JUDGED,
    "ppo": JUDGED,
    "rm": ["eval/accuracy", "eval/loss", "eval/margin"],
}
"""What may be an objective: measured alike in all trials."""
TOKENS = "train/num_tokens"
SECONDS = "time/train_seconds"
GPU_MEMORY = "memory/gpu_peak_mib"
COSTS = [SECONDS, TOKENS]
"""What a further objective may spare."""

_ALL = ["train/loss", "train/grad_norm", "train/learning_rate", TOKENS, SECONDS,
        "time/judge_seconds", "time/checkpoint_seconds", "memory/resident_mib"]  # fmt: skip
_TRL = ["train/epoch"]
_OWN = {
    "sft": [*_TRL, "train/entropy", "train/mean_token_accuracy"],
    "rm": [*_TRL, "eval/accuracy_stderr",
           *(f"train/{name}" for name in ("accuracy", "margin", "max_reward", "mean_reward",
                                          "min_reward"))],
    "dpo": [*_TRL, "train/entropy", "train/mean_token_accuracy",
            *(f"train/{name}" for name in ("rewards/accuracies", "rewards/chosen",
              "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected",
              "logits/chosen", "logits/rejected"))],
    "ppo": [*(f"train/{name}" for name in ("kl", "kl_k1", "kl_coef", "reward", "length", "finished",
              "entropy", "approx_kl", "clip_fraction", "policy_loss", "updates",
              "grad_norm_clipped")),
            "time/rollout_seconds", "time/update_seconds"],
}  # fmt: skip
OF_THE_CRITIC = ["train/value_loss", "train/value_clip_fraction", "train/explained_variance",
                 "train/value_grad_norm", "train/value_grad_norm_clipped"]  # fmt: skip
"""What PPO reports only with a value head."""
KL_RATIO = "train/kl_ratio"
"""The KL of the rollouts over its target; reported where a controller has one."""


def reported(spec: SweepSpec) -> list[str]:
    """Every metric that all trials of a sweep report."""
    algorithm = spec.algorithm
    names = [*METRICS[algorithm.type], *_ALL, *_OWN[algorithm.type]]
    if algorithm.type == "sft" and spec.data.eval is None and spec.data.eval_fraction == 0:
        names.remove("eval/loss")
    if spec.judge is not None:
        names += OF_THE_JUDGE
    elif algorithm.type != "rm":
        names = [name for name in names if name not in OF_THE_JUDGE]
    if algorithm.type == "ppo":
        path = "algorithm.advantage_estimator"
        if all(one == "gae" for one in values_of(spec, path, algorithm.advantage_estimator)):
            names += OF_THE_CRITIC
        controllers = values_of(spec, "algorithm.kl_controller", algorithm.kl_controller)
        if "fixed" not in controllers:
            names.append(KL_RATIO)
    if spec.resources.gpus_per_trial != 0:
        names.append(GPU_MEMORY)
    return list(dict.fromkeys(names))
