from __future__ import annotations

from collections.abc import Callable

import pytest

from easyds_tune.spec.notes import decision_notes
from easyds_tune.spec.sweep import SweepSpec

Make = Callable[..., SweepSpec]
RANK, RATE = "model.lora_r", "training.learning_rate"
SPACE = {RANK: [8, 16], RATE: {"low": 0.1, "high": 0.2}}
BOUND = {"eval/loss": {"max": 1}}


@pytest.mark.parametrize(
    ("sampler", "what"),
    [
        ("tpe", []),
        ("random", ["random ignores bounds, and goes on outside them"]),
        ("grid", ["grid ignores bounds"]),
        ("qmc", ["qmc ignores bounds", f"qmc draws {RANK} at random"]),
        ("cmaes", ["cmaes ignores bounds; it sees", "cmaes ignores pruned trials",
                   "cmaes learns of a trial that waits",
                   f"cmaes draws {RANK} at random"]),
        ("gp", ["gp ignores that a trial was pruned"]),
        ("nsga2", ["nsga2 ignores that a trial was pruned", "nsga2 learns of a trial that waits"]),
    ],
)  # fmt: skip
def test_a_plan_says_what_a_sampler_ignores(spec: Make, sampler: str, what: list[str]) -> None:
    notes = decision_notes(spec(SPACE, bounds=BOUND, **{"search.sampler": sampler}))
    assert len(notes) == len(what)
    assert all(f"search.sampler: {part}" in note for part, note in zip(what, notes, strict=True))


def test_nothing_is_pruned_without_a_scheduler(spec: Make) -> None:
    fields = {"search.sampler": "gp", "scheduler.type": "none"}
    assert decision_notes(spec(SPACE, **fields)) == []


def test_a_conditional_field_is_beyond_a_sampler_that_knows_one_space(spec: Make) -> None:
    space = {RANK: [8, 16], RATE: {"low": 0.1, "high": 0.2, "when": {RANK: 8}}}
    fields = {"search.sampler": "gp", "scheduler.type": "none"}
    assert decision_notes(spec(space, **fields)) == [
        f"search.sampler: gp draws {RATE} at random, without what it learnt"
    ]
