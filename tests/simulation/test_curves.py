"""What curves report: the truth, the truth with noise, and values prompt by prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyds_tune.errors import DataError
from easyds_tune.simulation.curves import Curves, load_landscape
from tests.simulation.landscapes import LOSS, MODELLED, RATE, curves

PARAMS = {RATE: 1e-3, LOSS: "hinge"}


def test_a_report_has_the_metrics_of_a_trial() -> None:
    report = curves().report(PARAMS, 3)
    assert report["train/num_tokens"] == 300
    assert report["time/train_seconds"] == 6.0
    assert {"eval/reward", "eval/reward_stderr", "eval/kl", "eval/kl_stderr", "eval/length",
            "eval/kl_sequence", "train/loss", "train/grad_norm"} <= set(report)  # fmt: skip
    assert report["eval/kl_sequence"] == pytest.approx(
        report["eval/kl"] * report["eval/length"], rel=1e-9
    )


def test_finals_values_average_to_what_finals_measure() -> None:
    found = curves()
    values, weights = found.finals(PARAMS, 3, seed=0, prompts=64)
    truth = found.truth(PARAMS, 3)
    assert len(values["eval/reward"]) == len(weights["eval/kl"]) == 64
    assert sum(values["eval/reward"]) / 64 == pytest.approx(truth["eval/reward"], abs=0.5)
    assert sum(values["eval/kl"]) / sum(weights["eval/kl"]) == pytest.approx(
        truth["eval/kl"], rel=0.6
    )


def test_another_training_seed_has_other_noise_and_the_same_truth() -> None:
    found = curves()
    one, other = (found.report(PARAMS, 3, seed)["eval/reward"] for seed in (0, 1))
    assert one != other


def test_what_a_trial_does_not_set_is_fixed() -> None:
    landscape = curves().landscape
    fixed = Curves(landscape, fixed={LOSS: "hinge"})
    assert fixed.truth({RATE: 1e-3}, 3) == curves().truth(PARAMS, 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing.yaml", None),
        ("empty.yaml", ""),
        ("text.json", "no JSON"),
        ("few.json", json.dumps({"space": {}, "trials": []})),
        ("broken.yaml", "space: {training.learning_rate: {low: 1.0}}"),
        ("choice.yaml", json.dumps(MODELLED | {"gain": {"base": 0.5, LOSS: [0.0]}})),
        ("number.yaml", json.dumps(MODELLED | {"gain": {"base": 0.5, RATE: [0.0]}})),
    ],
)
def test_a_file_without_curves_is_refused_in_a_line(
    tmp_path: Path, name: str, text: str | None
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="must hold learning curves"):
        load_landscape(path)
