"""Where a configuration lies in its search space: each parameter from 0 to 1, choices by place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from easyds_tune.spec.search import ChoiceParam, Param, param_kind

_PARAM: TypeAdapter[Param] = TypeAdapter(Param)


def read_space(raw: Mapping[str, Any]) -> dict[str, Param]:
    """A search space as a spec writes it; whole bounds with a float's other signs stay whole.

    Raises pydantic's error where an entry is none.
    """
    return {path: _PARAM.validate_python(param_kind(value)) for path, value in raw.items()}


def position(param: Param, value: Any) -> float:
    """Where a value lies between the ends of a number's range, beyond them below 0 or above 1;
    of a choice: its place in the list.

    Raises ValueError where a choice does not have the value.
    """
    if isinstance(param, ChoiceParam):
        return float(param.choice.index(value))
    low, high, at = float(param.low), float(param.high), float(value)
    if param.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)
