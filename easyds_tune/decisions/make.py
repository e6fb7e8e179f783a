"""A spec's decider, with the sampler behind it. Imports Optuna."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from easyds_tune.decisions.decider import Decider
from easyds_tune.decisions.rules import rules_of
from easyds_tune.decisions.suggest import Suggester
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.sweep import SweepSpec


def make_decider(
    spec: SweepSpec,
    record: SweepRecord,
    slots: int,
    train_records: int | None = None,
    points: Sequence[dict[str, Any]] = (),
    holds_finals: bool = True,
) -> Decider:
    """The decider of a sweep whose events so far are in `record`.

    train_records: records that trials train on; needed where the budget is in epochs.
    points: configurations to try right after the default one. holds_finals: whether there is
    anything to judge finalists on; without, nothing is trained again for them.
    """

    def examples_per_step(params: dict[str, Any]) -> int:
        return spec.with_params(params).examples_per_step

    rules = rules_of(spec, slots, gpus_of(spec.resources), train_records)
    return Decider(
        rules=rules if holds_finals else dataclasses.replace(rules, seeds=0),
        record=record,
        suggest=Suggester(spec).suggest,
        default=spec.default_params(),
        points=points,
        examples_per_step=examples_per_step if spec.searches_batch else None,
    )
