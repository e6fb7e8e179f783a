"""What may be right about a sweep's decisions but deserves a word before it starts."""

from __future__ import annotations

from easyds_tune.spec.rungs import scheduler_type
from easyds_tune.spec.search import ChoiceParam
from easyds_tune.spec.sweep import SweepSpec

WARNING = "warning: "
"""How a note begins that should stand out."""

NO_MEMORY = ("qmc", "random", "grid")
"""Samplers that learn nothing from trials, so nothing of bounds either."""

MANY_FOR_GP = 200
"""Trials from which a Gaussian process, whose cost grows with their cube, is slow."""


def shown_note(note: str) -> str:
    """A note as it is printed."""
    return note if note.startswith(WARNING) else f"note: {note}"


def decision_notes(spec: SweepSpec) -> list[str]:
    """Where a sampler ignores bounds, pruned trials or parts of the space."""
    sampler = spec.search.sampler
    notes = []
    if spec.bounds and sampler in NO_MEMORY:
        notes.append(f"search.sampler: {sampler} ignores bounds, and goes on outside them")
    elif spec.bounds and sampler == "cmaes":
        notes.append("search.sampler: cmaes ignores bounds; it sees a trial outside as pruned")
    if scheduler_type(spec) != "none":
        if sampler in ("gp", "nsga2"):
            notes.append(
                f"search.sampler: {sampler} ignores that a trial was pruned, and takes its last "
                "score as if it had run to its end"
            )
        elif sampler == "cmaes":
            notes.append("search.sampler: cmaes ignores pruned trials and learns from the others")
        if sampler in ("cmaes", "nsga2") and scheduler_type(spec) in ("asha", "halving"):
            notes.append(
                f"search.sampler: {sampler} learns of a trial that waits at a rung only when the "
                "search is over; set scheduler.type: asha_stop or none"
            )
    drawn = [
        path
        for path, param in spec.search_space.items()
        if (isinstance(param, ChoiceParam) and sampler in ("cmaes", "qmc"))
        or (param.when and sampler in ("cmaes", "qmc", "gp"))
    ]
    if sampler == "gp" and spec.search.num_trials > MANY_FOR_GP:
        notes.append(
            f"search.sampler: gp needs seconds a suggestion from some {MANY_FOR_GP} trials on, and "
            "more with each; tpe takes milliseconds"
        )
    if drawn:
        notes.append(
            f"search.sampler: {sampler} draws {', '.join(drawn)} at random, without what it learnt"
        )
    return notes
