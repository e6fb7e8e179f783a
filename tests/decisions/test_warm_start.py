"""Warm-start points: as written, then an earlier sweep's best."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyds_tune.decisions.warm_start import warm_points
from easyds_tune.errors import SpecError
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord
from tests.decisions.histories import (
    BETA,
    CONDITIONAL,
    KL_BOUND,
    LEARNING_RATE,
    LOSS,
    PLAIN,
    RANK,
    SMOOTHING,
    History,
    a_spec,
)

DEFAULT = {LEARNING_RATE: 1e-4, BETA: 0.1}


def test_points_are_completed_by_the_default_and_distinct() -> None:
    points = [{BETA: 0.3}, {LEARNING_RATE: 1e-3}, {BETA: 0.3}, {BETA: 0.1}]
    assert warm_points(a_spec(PLAIN, points=points)) == [
        {LEARNING_RATE: 1e-4, BETA: 0.3},
        {LEARNING_RATE: 1e-3, BETA: 0.1},
    ]


def test_a_point_takes_the_fields_that_its_conditions_give_it() -> None:
    spec = a_spec(CONDITIONAL, points=[{LOSS: "exo_pair", SMOOTHING: 0.2}, {SMOOTHING: 0.2}])
    assert warm_points(spec) == [{LEARNING_RATE: 1e-4, SMOOTHING: 0.2, LOSS: "exo_pair"}]


def earlier() -> SweepRecord:
    """A sweep whose best rewards lie outside of the KL bound or belong to failed trials."""
    history = History(a_spec({**PLAIN, RANK: [4, 8]}))
    for beta, reward, kl, state in [
        (0.1, 0.0, 0.1, TrialState.COMPLETED),
        (0.9, 9.0, 0.5, TrialState.COMPLETED),
        (0.8, 8.0, 0.1, TrialState.DIVERGED),
        (0.2, 2.0, 0.1, TrialState.COMPLETED),
        (0.3, 4.0, 0.1, TrialState.PRUNED),
        (0.3, 3.9, 0.1, TrialState.COMPLETED),
        (0.4, 1.0, 0.1, TrialState.PAUSED),
    ]:
        history.add({LEARNING_RATE: 1e-4, BETA: beta, RANK: 4}, reward, kl, state=state)
    history.add({LEARNING_RATE: 0.5, BETA: 0.5, RANK: 4}, 3.0)
    return history.record


def test_the_best_of_an_earlier_sweep_follow_as_this_spec_judges_them() -> None:
    spec = a_spec(PLAIN, bounds=KL_BOUND, points=[{BETA: 0.7}], points_from="earlier")
    notes: list[str] = []
    points = warm_points(spec, lambda name: earlier(), notes.append)
    assert [point[BETA] for point in points] == [0.7, 0.3, 0.5, 0.2]
    assert points[2][LEARNING_RATE] == 1e-4  # 0.5 lies outside: the spec's own stands in
    assert any("model.lora_r=4, training.learning_rate=0.5" in note for note in notes)


def test_an_earlier_sweep_without_a_fit_trial_lends_nothing_and_says_so() -> None:
    spec = a_spec(PLAIN, bounds={"eval/kl": {"max": 0.01}}, points_from="earlier")
    notes: list[str] = []
    assert warm_points(spec, lambda name: earlier(), notes.append) == []
    assert "earlier holds no configuration" in notes[-1]


def test_an_earlier_sweep_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = a_spec(PLAIN, points_from="earlier", output={"folder": str(tmp_path)})
    with pytest.raises(SpecError, match="no sweep is called 'earlier'"):
        warm_points(spec)


def test_a_file_completes_points_too(tmp_path: Path) -> None:
    path = tmp_path / "space.py"
    path.write_text(
        f"def search_space(trial):\n    return {{{BETA!r}: trial.suggest_float({BETA!r}, 0, 1)}}\n"
    )
    spec = a_spec({}, space_file=str(path), points=[{BETA: 0.4}], points_from="earlier")
    points = warm_points(spec, lambda name: earlier())
    assert [point[BETA] for point in points] == [0.4, 0.9, 0.3, 0.5]
