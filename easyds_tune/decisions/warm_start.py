"""Warm-start points: configurations tried right after trial 0, before the sampler is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from easyds_tune.decisions.outcome import Outcome, trial_outcome
from easyds_tune.decisions.rules import bounds_of, objectives_of
from easyds_tune.decisions.space import Space, open_space
from easyds_tune.decisions.told import quiet_optuna
from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord, TrialRecord
from easyds_tune.results.load import find_sweep, load_sweep_record
from easyds_tune.spec.sweep import SweepSpec

RecordLoader = Callable[[str], SweepRecord]

_TAKEN = (TrialState.COMPLETED, TrialState.PRUNED, TrialState.PAUSED, TrialState.BOUNDED)


def load_record(name: str, root: Path) -> SweepRecord:
    """The record of a sweep, by its name under `root` or its folder."""
    return load_sweep_record(find_sweep(os.path.expanduser(name), root))


def warm_points(
    spec: SweepSpec,
    load: RecordLoader | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """The configurations to try as trials 1, 2, ...: complete, distinct, none of them trial 0's.

    `search.points` come first, as written; then the best of `search.points_from`, as this spec
    judges them: inside its bounds, by its first objective. Fields
    that this space does not search are left out, as are values outside of it: the spec's own stand
    in for them.

    load: finds the record of a sweep; looks in the spec's output folder by default.
    note: is told in words what was left out.

    Raises:
        SpecError: no such sweep; or the space's file raised, or broke a rule.
        JournalError: that sweep's journal is damaged.
    """
    quiet_optuna()
    space = open_space(spec)
    seen = [spec.default_params()]
    points: list[dict[str, Any]] = []

    def take(point: dict[str, Any]) -> bool:
        params = space.complete(point)
        if params in seen:
            return False
        seen.append(params)
        points.append(params)
        return True

    for point in spec.search.points:
        take(dict(point))
    source = spec.search.points_from
    if source is None:
        return points
    record = load(source) if load else load_record(source, Path(spec.output.folder))
    left = spec.search.num_points_from
    for trial, _ in _best_first(spec, record):
        if left and take(_inside(space, trial, source, note)):
            left -= 1
    if left == spec.search.num_points_from:
        note(f"search.points_from: {source} holds no configuration that is fit to start from")
    return points


def _best_first(spec: SweepSpec, record: SweepRecord) -> list[tuple[TrialRecord, Outcome]]:
    """The trials of a record that are feasible here, best first."""
    objectives, bounds = objectives_of(spec)[:1], bounds_of(spec)
    found = [
        (trial, outcome)
        for trial in record.trials.values()
        if trial.state in _TAKEN
        and (outcome := trial_outcome(trial, objectives, bounds)).is_feasible
    ]
    sign = -1.0 if objectives[0].mode == "max" else 1.0
    return sorted(found, key=lambda one: (sign * one[1].values[0], one[0].number))


def _inside(
    space: Space, trial: TrialRecord, source: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """The values of a trial that this space can propose."""
    outside = set(space.outside(trial.params))
    if outside:
        shown = ", ".join(f"{path}={trial.params[path]}" for path in sorted(outside))
        note(
            f"search.points_from: trial {trial.id} of {source} lends no {shown}: not in this "
            "search space; this spec's own values stand in"
        )
    return {path: value for path, value in trial.params.items() if path not in outside}
