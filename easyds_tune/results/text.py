"""How numbers, durations and parameter names are written for a person."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

_SMALLEST_FIXED = 1e-5  # a smaller standard error needs more digits than a column has


def format_number(value: float) -> str:
    """Up to four significant digits: ``0.1234``, ``12346``, ``2.5e-5`` (not ``2.5e-05``)."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def format_measured(value: float | None, stderr: float | None) -> str:
    """A value rounded to two digits of its standard error, ``1.234 ± 0.056``; ``–`` for None."""
    if value is None:
        return "–"
    if not stderr or not math.isfinite(value):
        return format_number(value)
    if stderr < _SMALLEST_FIXED:
        return f"{format_number(value)} ± {stderr:.0e}".replace("e-0", "e-")
    decimals = _decimals(stderr)
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"


def format_difference(value: float, stderr: float | None) -> str:
    """A difference with its sign, as exact as a value with that standard error is shown."""
    if stderr and stderr >= _SMALLEST_FIXED:
        return f"{value:+.{_decimals(stderr)}f}"
    text = format_number(value)
    return text if text.startswith("-") else f"+{text}"


def format_interval(value: float, low: float, high: float) -> str:
    """A value with its 95 % interval, ``0.842 (95 % interval 0.790 to 0.893)``, all as exact."""
    width = high - low
    if not math.isfinite(width) or width < _SMALLEST_FIXED:
        texts = [format_number(number) for number in (value, low, high)]
        return "{} (95 % interval {} to {})".format(*texts)
    decimals = _decimals(width / 4)
    return f"{value:.{decimals}f} (95 % interval {low:.{decimals}f} to {high:.{decimals}f})"


def _decimals(stderr: float) -> int:
    return max(1 - math.floor(math.log10(stderr)), 0)


def format_param(value: Any) -> str:
    """A parameter's value in short: lists joined by ``+``, None as ``null`` as in the YAML."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return format_number(value)
        case list() | tuple():
            return "+".join(format_param(item) for item in value)
        case _:
            return str(value)


def format_params(params: dict[str, Any]) -> str:
    """All parameters on one line: ``learning_rate=2.5e-5 beta=0.1``."""
    names = short_names(params)
    return " ".join(f"{names[path]}={format_param(value)}" for path, value in params.items())


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units: ``8 s``, ``2 min 05 s``, ``2 d 04 h``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{total // 86400} d {total % 86400 // 3600:02d} h"


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Map each dotted path to its last part, or to itself where that part is not unique."""
    paths = list(paths)
    count = Counter(path.rpartition(".")[2] for path in paths)
    return {path: last if count[last := path.rpartition(".")[2]] == 1 else path for path in paths}
