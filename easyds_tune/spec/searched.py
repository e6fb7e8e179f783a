"""What values a field takes across the trials of a sweep."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from easyds_tune.spec.conditions import is_same, requirements
from easyds_tune.spec.sweep import SweepSpec


def values_of(spec: SweepSpec, path: str, default: Any) -> list[Any]:
    """The field's own value and the end points of its search; null left out."""
    param = spec.search_space.get(path)
    values = [default, *(param.end_points() if param else [])]
    return [value for value in values if value is not None]


def values_where(spec: SweepSpec, path: str, default: Any, field: str, value: Any) -> list[Any]:
    """As `values_of`, in the trials in which `field` has `value`, as far as `when` tells."""
    needs = requirements(spec.search_space, path) if path in spec.search_space else {}
    if not needs or field not in needs:
        return values_of(spec, path, default)
    if not any(is_same(value, wanted) for wanted in needs[field]):
        return [default]
    # With other conditions besides, the spec's own value may stand in such a trial too.
    found = values_of(spec, path, default)
    return found[1:] if len(needs) == 1 and default is not None else found


def numbers_of(spec: SweepSpec, path: str, default: float | None) -> list[float]:
    """As `values_of`, in numbers; a value that is none, or not finite, is refused elsewhere."""
    return finite_numbers(values_of(spec, path, default))


def finite_numbers(values: list[Any]) -> list[float]:
    """Those of some values that are finite numbers, also where one is written as text."""
    numbers = []
    for value in values:
        with suppress(TypeError, ValueError, OverflowError):
            numbers.append(float(value))
    return [number for number in numbers if math.isfinite(number)]
