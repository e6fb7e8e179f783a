"""Names that the algorithms are seen to report, in what recorded sweeps hold."""

from __future__ import annotations

from collections.abc import Callable

from easyds_tune.spec.metrics import OF_THE_CRITIC, reported
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
JUDGE = {"prompts": "p", "reward": {"model_name_or_path": "someone/a-reward"}}


def test_a_reward_model_reports_its_accuracy_and_no_replies(spec: Make) -> None:
    names = reported(spec())
    assert {"eval/accuracy", "eval/accuracy_stderr", "train/grad_norm", "train/margin"} <= set(
        names
    )
    assert not {"eval/reward", "eval/kl", "train/kl"} & set(names)


def test_what_the_judge_reports_needs_a_judge(spec: Make) -> None:
    alone = reported(spec(algorithm={"type": "sft"}))
    assert "eval/loss" in alone
    assert "eval/kl" not in alone
    assert "eval/loss" not in reported(spec(**{"data.eval_fraction": 0}))
    judged = reported(spec(judge=JUDGE, **{"data.eval_fraction": 0.1}))
    assert {"eval/kl", "eval/kl_stderr", "eval/loss"} <= set(judged)


def test_value_losses_come_from_trials_that_all_have_a_value_head(ppo: Make) -> None:
    assert set(OF_THE_CRITIC) <= set(reported(ppo()))
    mixed = ppo({"algorithm.advantage_estimator": ["gae", "rloo"]})
    assert not set(OF_THE_CRITIC) & set(reported(mixed))
    assert {"train/kl", "train/kl_coef"} <= set(reported(mixed))


def test_an_estimator_of_any_shape_reports_no_value_losses(ppo: Make) -> None:
    """Refused as a value elsewhere; here it must do no harm."""
    assert not set(OF_THE_CRITIC) & set(reported(ppo({"algorithm.advantage_estimator": [[]]})))
