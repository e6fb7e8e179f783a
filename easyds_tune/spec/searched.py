"""What values a field takes across the trials of a sweep."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from easyds_tune.spec.sweep import SweepSpec


def values_of(spec: SweepSpec, path: str, default: Any) -> list[Any]:
    """The field's own value and the end points of its search; null left out."""
    param = spec.search_space.get(path)
    values = [default, *(param.end_points() if param else [])]
    return [value for value in values if value is not None]


def numbers_of(spec: SweepSpec, path: str, default: float | None) -> list[float]:
    """As `values_of`, in numbers; a value that is none, or not finite, is refused elsewhere."""
    numbers = []
    for value in values_of(spec, path, default):
        with suppress(TypeError, ValueError, OverflowError):
            numbers.append(float(value))
    return [number for number in numbers if math.isfinite(number)]
