"""Limits a trial has to stay inside, and by how much it misses them. Standard library only.

A margin is signed and in units of the bound's own width, so that margins of different metrics may
be added and compared: 0 on the limit, negative inside, 0.5 half a width outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LARGEST_MARGIN = 10.0
"""The margin of a metric that is missing or not finite, and the most any other can have."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One metric's limits; `min` or `max` may be missing, not both.

    The guard holds a trial to it from `from_step` on: `patience` reports in a row that break it
    stop the trial if it is `hard`, and else make it rank behind all others while it is broken.
    A checkpoint is fit to win only inside all bounds, whatever its step.
    """

    metric: str
    min: float | None = None
    max: float | None = None
    from_step: int = 0
    patience: int = 1
    hard: bool = True

    @property
    def width(self) -> float:
        """What margins are divided by: the range, or the size of the only limit, or 1."""
        if self.min is not None and self.max is not None:
            return self.max - self.min
        limit = self.min if self.min is not None else self.max
        assert limit is not None
        return abs(limit) or 1.0

    def margins(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Margin of each limit, by a key such as ``eval/kl<=0.2``; the largest for no number."""
        value = metrics.get(self.metric, math.nan)
        found: dict[str, float] = {}
        if self.min is not None:
            found[f"{self.metric}>={self.min:g}"] = self._scaled(self.min - value)
        if self.max is not None:
            found[f"{self.metric}<={self.max:g}"] = self._scaled(value - self.max)
        return found

    def excess(self, metrics: Mapping[str, float]) -> float:
        """The larger of its margins: positive where the bound is broken."""
        return max(self.margins(metrics).values())

    def _scaled(self, distance: float) -> float:
        if not math.isfinite(distance):
            return LARGEST_MARGIN
        return max(-LARGEST_MARGIN, min(LARGEST_MARGIN, distance / self.width))

    def __str__(self) -> str:
        """As a person says it: ``eval/kl within 0.05 to 0.2``."""
        if self.min is None:
            return f"{self.metric} at most {self.max:g}"
        if self.max is None:
            return f"{self.metric} at least {self.min:g}"
        return f"{self.metric} within {self.min:g} to {self.max:g}"


def margins(bounds: Iterable[Bound], metrics: Mapping[str, float]) -> dict[str, float]:
    """Every limit's margin, by its key."""
    return {key: value for bound in bounds for key, value in bound.margins(metrics).items()}


def violation(
    bounds: Iterable[Bound], metrics: Mapping[str, float], step: int | None = None
) -> float:
    """How far metrics lie outside of the bounds: the sum of all positive margins, 0 inside.

    step: leave out bounds that the guard does not hold to yet at this step; None takes all.
    """
    return sum(
        max(0.0, bound.excess(metrics))
        for bound in bounds
        if step is None or step >= bound.from_step
    )
