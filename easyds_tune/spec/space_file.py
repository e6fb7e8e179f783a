"""A search space in Python: `def search_space(trial)`, Optuna's define-by-run, without Optuna.

What it suggests is named by a dotted path of the spec and returned under that name, together with
any further values that follow from it.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from easyds_tune.errors import SpecError
from easyds_tune.spec.yaml_text import MAX_DEPTH

FUNCTION = "search_space"
"""The name of the function in a space file."""
SearchSpace = Callable[[Any], Any]


class StandInTrial:
    """Answers what a space file asks of an Optuna trial: with given values, else at random.

    values: dotted path -> what to answer; rng: draws where there is none, and without it a name
    that has no value raises KeyError.
    """

    def __init__(self, values: Mapping[str, Any], rng: random.Random | None = None) -> None:
        self.params: dict[str, Any] = {}
        self.number = 0
        self._values = values
        self._rng = rng

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A real number from low to high, both included."""
        _check_range(name, low, high, step, log)
        value: float = self._answer(name, lambda rng: _number(rng, low, high, step, log))
        return value

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number from low to high, both included."""
        _check_range(name, low, high, None if log else step, log)

        def draw(rng: random.Random) -> int:
            if log:
                return round(_number(rng, low, high, None, True))
            return low + step * rng.randint(0, (high - low) // step)

        value: int = self._answer(name, draw)
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of several values."""
        if not choices:
            raise ValueError(f"{name} has no choices")
        return self._answer(name, lambda rng: rng.choice(list(choices)))

    def _answer(self, name: str, draw: Callable[[random.Random], Any]) -> Any:
        if name not in self.params:
            if name in self._values:
                self.params[name] = self._values[name]
            elif self._rng is None:
                raise KeyError(name)
            else:
                self.params[name] = draw(self._rng)
        return self.params[name]


def _check_range(name: str, low: float, high: float, step: float | None, log: bool) -> None:
    if not low <= high:
        raise ValueError(f"{name}: low <= high must hold, got {low} and {high}")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"{name}: log needs low above 0 and no step, got {low} and {step}")
    if step is not None and step <= 0:
        raise ValueError(f"{name}: step must be above 0, got {step}")


def _number(rng: random.Random, low: float, high: float, step: float | None, log: bool) -> float:
    if log:
        return min(high, max(low, math.exp(rng.uniform(math.log(low), math.log(high)))))
    if step is None:
        return rng.uniform(low, high)
    return low + step * rng.randint(0, math.floor((high - low) / step + 1e-8))


def load_space(path: str) -> SearchSpace:
    """The function of a space file, loaded anew only when the file changed.

    Raises SpecError where there is no such file or function, or where it raises.
    """
    try:
        stat = Path(path).stat()
    except (OSError, ValueError) as error:
        raise SpecError([f"space_file: no such file: {path!r}; looked in {Path.cwd()}"]) from error
    return _load(str(Path(path).absolute()), path, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _load(absolute: str, path: str, changed: int) -> SearchSpace:
    names: dict[str, Any] = {"__name__": Path(path).stem, "__file__": absolute}
    try:
        source = Path(absolute).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([f"space_file: must be a Python file, got {path!r} ({error})"]) from error
    try:
        exec(compile(source, absolute, "exec"), names)
    except (Exception, SystemExit) as error:
        raise SpecError([_blamed(path, error)]) from error
    function = names.get(FUNCTION)
    if not callable(function):
        raise SpecError(
            [f"space_file: must define {FUNCTION}(trial), and {path} does not; define it"]
        )
    found: SearchSpace = function
    return found


def draw(path: str, trial: Any) -> dict[str, Any]:
    """The configuration that a space file proposes for a trial, Optuna's or a stand-in.

    Raises SpecError where the file raises, or returns what is no configuration.
    """
    function = load_space(path)
    try:
        params = function(trial)
    except (Exception, SystemExit) as error:
        raise SpecError([_blamed(path, error)]) from error
    if not isinstance(params, dict) or not all(isinstance(name, str) for name in params):
        raise SpecError(
            [
                f"space_file: {FUNCTION} must return a dict of dotted fields and values, got "
                f"{params!r:.80}; return one"
            ]
        )
    odd = [name for name, value in params.items() if not _is_plain(value)]
    if odd:
        raise SpecError(
            [
                f"space_file: {FUNCTION} must return text, numbers, true, false, None and lists or "
                f"dicts of these, got {type(params[odd[0]]).__name__} for {odd[0]!r}; return it as "
                "one of them"
            ]
        )
    missing = [
        name for name, value in trial.params.items() if name not in params or params[name] != value
    ]
    if missing:
        raise SpecError(
            [
                f"space_file: {FUNCTION} must return each value under the name it was suggested "
                f"as, and {missing[0]!r} is not returned so; name it by its dotted field"
            ]
        )
    return dict(params)


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a journal can hold a value and a spec be made with it."""
    if isinstance(value, list | dict):
        parts = value.values() if isinstance(value, dict) else value
        names = all(isinstance(key, str) for key in value) if isinstance(value, dict) else True
        return depth < MAX_DEPTH and names and all(_is_plain(part, depth + 1) for part in parts)
    return value is None or isinstance(value, bool | int | float | str)


def _blamed(path: str, error: BaseException) -> str:
    """What a space file raised, with its line."""
    if isinstance(error, SyntaxError):
        line = error.lineno or 0
    else:
        frames = traceback.extract_tb(error.__traceback__)
        absolute = str(Path(path).absolute())
        own = [frame.lineno or 0 for frame in frames if frame.filename == absolute]
        line = own[-1] if own else 0
    return (
        f"space_file: must run without an error, and {path}:{line} raised "
        f"{traceback.format_exception_only(error)[-1].strip()}; correct it"
    )


def own_configuration(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a space file searches in the spec's own configuration, with its own values.

    values: every field of the spec by its dotted path. Empty where the file is wrong, or asks for
    what is no field: the checks tell.
    """
    try:
        found = draw(path, StandInTrial(values))
    except SpecError:
        return {}
    return {name: values[name] for name in found if name in values}
