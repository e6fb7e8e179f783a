from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.journal.bounds import Bound
from easyds_tune.journal.events import TrialState
from easyds_tune.results.best import best_json, write_best
from tests.results.judged import JudgedSweep


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
    wide = 1.96 * 0.05 * 2**0.5
    assert best["gain_over_default"]["interval_95"] == pytest.approx([0.4 - wide, 0.4 + wide])
    assert best["gain_over_default"]["distinguishable"] is True
    assert best["judged_by"] == "search"
    assert [other["trial"] for other in best["runners_up"]] == ["005", "000", "002"]


def test_why_says_how_sure_the_win_is(sweep: Callable[..., Any]) -> None:
    builder = sweep().trial(score(1.0)).trial(score(2.8)).trial(score(2.5))
    assert best_json(builder.record())["why"] == (
        "Trial 001 at step 10 has the highest eval/reward, 2.80 ± 0.30, of 3 trials. "
        "The default configuration has 1.00 ± 0.30: 4.2 standard errors away. "
        "The runner-up, trial 002, has 2.50 ± 0.30: not distinguishable, the gap may be chance. "
        "These are the search's own numbers, the winner's biased upward: no finals."
    )
    assert best_json(builder.record())["gain_over_runner_up"]["distinguishable"] is False


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


def test_where_nothing_is_inside_the_bounds_the_nearest_miss_stands_for_the_winner() -> None:
    sweep = JudgedSweep(Bound("eval/kl", max=0.2))
    sweep.trial({10: {"eval/reward": 1.0, "eval/kl": 0.5}})
    sweep.trial({10: {"eval/reward": 0.5, "eval/kl": 0.213, "eval/kl_stderr": 0.01}})
    best = best_json(sweep.record)
    assert best["winner"] is None
    assert best["nearest_miss"]["trial"] == "001"
    assert best["why"] == (
        "No trial is fit to win: none of 2 has a checkpoint inside all bounds. The nearest miss is "
        "trial 001 at step 10, by 0.065 of a bound's width: eval/kl 0.213 ± 0.010, must be at "
        "most 0.2."
    )


def judged(*bounds: Bound) -> JudgedSweep:
    """Three trials whose finals' rewards are theirs plus one common noise; KL rises with them."""
    noise = [0.2 * math.sin(7 * n) for n in range(64)]
    sweep = JudgedSweep(*bounds)
    for reward, kl in ((0.4, 0.05), (0.9, 0.15), (0.895, 0.3)):
        row = {"eval/reward": reward + 0.1, "eval/reward_stderr": 0.05, "eval/kl": kl}
        trial = sweep.trial({40: row | {"train/loss": 0.5}})
        values = {
            "eval/reward": [reward + n * (1 + 0.1 * reward) for n in noise],
            "eval/kl": [20 * kl * (1 + n) for n in noise],
        }
        sweep.judged(trial, 40, values, {"eval/kl": [20.0] * 64})
    return sweep


def test_the_finals_number_is_the_number_and_the_searchs_stands_beside_it() -> None:
    best = best_json(judged().record)
    winner = best["winner"]
    assert best["judged_by"] == "finals"
    assert (winner["trial"], winner["step"]) == ("001", 40)
    assert winner["checkpoint"] == "trials/001/checkpoints/step-000040"
    assert winner["value"] == pytest.approx(0.9, abs=0.02)
    low, high = winner["interval_95"]
    assert low < winner["value"] < high
    assert winner["search"] == {"value": 1.0, "stderr": 0.05}
    assert winner["metrics"]["eval/reward"]["interval_95"] == winner["interval_95"]
    assert winner["metrics"]["eval/reward"]["search"]["value"] == 1.0
    assert winner["metrics"]["eval/kl"]["value"] == pytest.approx(0.15, abs=0.01)
    assert winner["metrics"]["train/loss"] == {"value": 0.5}
    assert best["gain_over_default"]["value"] == pytest.approx(0.5, abs=0.02)
    assert best["gain_over_default"]["distinguishable"] is True
    assert [other["trial"] for other in best["runners_up"]] == ["002", "000"]


def test_the_finals_say_what_may_be_chance_and_how_far_a_bound_is(tmp_path: Path) -> None:
    sweep = judged(Bound("eval/kl", min=0.02, max=0.35))
    why = best_json(sweep.record)["why"]
    assert why.startswith("Trial 001 at step 40 is the best of 3 finalists: eval/reward 0.9")
    assert "on 32 prompts that no decision has seen (search: 1.000 ± 0.050, biased upward)." in why
    assert "eval/kl 0.15" in why
    assert "): within 0.02 to 0.35." in why
    assert "It differs from the default configuration with 0.4" in why
    assert "the runner-up, trial 002 at step 40," in why
    text = write_best(sweep.record, tmp_path).read_text()
    assert json.loads(text) == best_json(sweep.record)


def test_the_finals_name_the_nearest_miss_where_noise_reaches_over_every_bound() -> None:
    best = best_json(judged(Bound("eval/kl", max=0.0501)).record)
    assert best["winner"] is None
    assert best["nearest_miss"]["trial"] == "000"
    assert best["why"].startswith(
        "No trial is fit to win: none of 3 finalists surely keeps all bounds. The nearest miss is "
        "trial 000 at step 40, by 0.0"
    )
    assert "must be at most 0.0501, and its 95 % interval reaches up to 0.05" in best["why"]


def test_a_configuration_that_was_trained_again_shows_its_spread() -> None:
    sweep = JudgedSweep()
    sweep.trial({40: {"eval/reward": 0.1}}, params={"lr": 1.0})
    sweep.trial({40: {"eval/reward": 0.1}}, params={"lr": 1.0}, source="finals", seed=1)
    for trial, reward in (("000", 1.0), ("001", 2.0)):
        sweep.judged(trial, 40, {"eval/reward": [reward + 0.1 * (n % 3) for n in range(60)]})
    best = best_json(sweep.record)
    assert best["winner"]["trainings"] == pytest.approx([2.1, 1.1])
    assert "trained on 2 seeds: 2.1, 1.1, mean 1.6, standard deviation 0.7071." in best["why"]
