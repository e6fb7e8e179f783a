from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.journal.events import TrialState
from easyds_tune.results.best import best_json, write_best


def score(value: float, stderr: float = 0.3) -> dict[int, dict[str, float]]:
    return {10: {"eval/reward": value, "eval/reward_stderr": stderr, "train/loss": float("nan")}}


def test_best_names_the_winner_its_checkpoint_and_what_it_gained(demo_sweep: Any) -> None:
    best = best_json(demo_sweep.record())

    winner = best["winner"]
    assert (winner["trial"], winner["step"]) == ("001", 20)
    assert winner["checkpoint"] == "trials/001/checkpoints/step-000020"
    assert winner["params"]["training.learning_rate"] == 5e-5
    reward = winner["metrics"]["eval/reward"]
    assert (reward["value"], reward["stderr"]) == (0.9, 0.05)
    assert reward["interval_95"] == pytest.approx([0.802, 0.998])  # 0.9 ± 1.96 · 0.05
    assert "eval/reward_stderr" not in winner["metrics"]

    assert best["default"]["trial"] == "000"
    assert best["gain_over_default"]["value"] == pytest.approx(0.4)
    assert best["gain_over_default"]["stderr"] == pytest.approx(0.05 * 2**0.5)
    assert [other["trial"] for other in best["runners_up"]] == ["005", "000", "002"]


def test_why_says_how_sure_the_win_is(sweep: Callable[..., Any]) -> None:
    builder = sweep().trial(score(1.0)).trial(score(2.8)).trial(score(2.5))
    assert best_json(builder.record())["why"] == (
        "Trial 001 at step 10 has the highest eval/reward, 2.80 ± 0.30, of 3 trials. "
        "The default configuration has 1.00 ± 0.30: 4.2 standard errors away. "
        "The runner-up, trial 002, has 2.50 ± 0.30: within two standard errors, so perhaps by "
        "chance."
    )


def test_why_says_how_far_the_winner_moved(sweep: Callable[..., Any]) -> None:
    row = score(1.0)
    row[10] |= {"eval/kl": 2.839, "eval/kl_stderr": 0.051}
    why = best_json(sweep().trial(row).record())["why"]
    assert "It moved 2.839 ± 0.051 nats per token away from the model it started from." in why


def test_why_admits_that_the_default_won(sweep: Callable[..., Any]) -> None:
    why = best_json(sweep("min").trial(score(1.0)).trial(score(2.8)).record())["why"]
    assert "the lowest eval/reward" in why
    assert "the search found nothing better" in why


def test_without_a_fit_trial_there_is_no_winner_and_a_reason(sweep: Callable[..., Any]) -> None:
    best = best_json(sweep().trial(score(1.0), TrialState.FAILED).record())
    assert best["winner"] is None
    assert best["why"] == "No trial is fit to win: none of 1 kept a finite eval/reward."


def test_trials_that_cannot_win_are_not_counted_and_an_unfit_default_is_no_measure(
    sweep: Callable[..., Any],
) -> None:
    builder = sweep().trial(score(9.0), TrialState.FAILED).trial(score(2.8)).trial(score(2.0))
    best = best_json(builder.record())
    assert "2.80 ± 0.30, of the 2 trials fit to win." in best["why"]
    assert "The default configuration (FAILED) has 9.00 ± 0.30" in best["why"]
    assert best["default"]["state"] == "FAILED"
    assert best["gain_over_default"] is None


def test_the_interval_of_an_accuracy_stays_between_0_and_1(sweep: Callable[..., Any]) -> None:
    row = {10: {"eval/accuracy": 0.95, "eval/accuracy_stderr": 0.05}}
    best = best_json(sweep(metric="eval/accuracy").trial(row).record())
    assert best["winner"]["metrics"]["eval/accuracy"]["interval_95"] == pytest.approx([0.852, 1.0])


def test_best_is_written_as_strict_json(sweep: Callable[..., Any], tmp_path: Path) -> None:
    record = sweep().trial(score(1.0)).record()
    path = write_best(record, tmp_path)
    assert json.loads(path.read_text()) == best_json(record)
    assert best_json(record)["winner"]["metrics"]["train/loss"] == {"value": None}
    assert [file.name for file in tmp_path.iterdir()] == ["best.json"]
