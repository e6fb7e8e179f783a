"""Conditional search: which fields a configuration has, by the `when` of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easyds_tune.spec.search import ChoiceParam, IntParam, Param


def allowed_values(wanted: Any) -> list[Any]:
    """The values that a `when` allows a field: the one it names, or each of a list."""
    return wanted if isinstance(wanted, list) else [wanted]


def is_same(left: Any, right: Any) -> bool:
    """Whether two values of a field are one; true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def holds(param: Param, params: Mapping[str, Any]) -> bool:
    """Whether a field's `when` holds; a field that is missing in `params` meets none."""
    return all(
        field in params and any(is_same(params[field], value) for value in allowed_values(wanted))
        for field, wanted in (param.when or {}).items()
    )


def ordered_paths(space: Mapping[str, Param]) -> list[str]:
    """All fields of a space, each after those its `when` names, else in the order written.

    Fields of a cycle come last, in the order written; the checks refuse them.
    """
    ordered: list[str] = []
    left = list(space)
    while left:
        ready = [path for path in left if _parents(space, path) <= set(ordered)]
        # One at a time: an early field is not overtaken by those that need no other.
        following = ready[0] if ready else left[0]
        ordered.append(following)
        left.remove(following)
    return ordered


def active_paths(space: Mapping[str, Param], params: Mapping[str, Any]) -> list[str]:
    """The fields that `params` may have, each after those its `when` names.

    params: values of searched fields; what a field's `when` names must be active itself. A sampler
    goes through `ordered_paths`, and draws a field where it `holds` by what it drew before.
    """
    active: dict[str, Any] = {}
    found = []
    for path in ordered_paths(space):
        if holds(space[path], active):
            found.append(path)
            if path in params:
                active[path] = params[path]
    return found


def requirements(space: Mapping[str, Param], path: str) -> dict[str, list[Any]]:
    """All that has to hold for a field to be searched: field -> values, none where it never is.

    What the fields named by its `when` need themselves is in it.
    """
    found: dict[str, list[Any]] = {}
    for one in (path, *_ancestors(space, path)):
        for field, wanted in (space[one].when or {}).items():
            values = allowed_values(wanted)
            if field in found:
                values = [v for v in found[field] if any(is_same(v, other) for other in values)]
            found[field] = values
    return found


def contains(param: Param, value: Any) -> bool:
    """Whether a search could propose this value: it is listed, or in range and on the grid."""
    if isinstance(param, ChoiceParam):
        return any(is_same(choice, value) for choice in param.choice)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not param.low <= value <= param.high:
        return False
    step = 1 if isinstance(param, IntParam) and param.step is None else param.step
    steps = (value - param.low) / step if step else 0.0
    return abs(steps - round(steps)) < 1e-8


def listed(param: Param) -> int | None:
    """How many values a search of a field can propose; None for a range without steps."""
    if isinstance(param, ChoiceParam):
        return len(param.choice)
    if isinstance(param, IntParam):
        return (param.high - param.low) // (param.step or 1) + 1
    return None if param.step is None else int((param.high - param.low) / param.step + 1e-8) + 1


def count_configurations(space: Mapping[str, Param], enough: int) -> int | None:
    """How many configurations a space holds; None where a range without steps is in it.

    enough: from so many on the number is a lower bound, for there is no end to counting.
    """
    if any(listed(param) is None for param in space.values()):
        return None
    alike = [(path, _alike(space, path)) for path in ordered_paths(space)]

    def count(position: int, params: dict[str, Any], enough: int) -> int:
        if position == len(alike):
            return 1
        path, groups = alike[position]
        if not holds(space[path], params):
            return count(position + 1, params, enough)
        found = 0
        for value, size in groups:
            if found >= enough:
                break
            left = -((found - enough) // size)
            found += size * count(position + 1, params | {path: value}, left)
        return found

    return count(0, {}, enough)


def _alike(space: Mapping[str, Param], path: str) -> list[tuple[Any, int]]:
    """The values of a field in groups that no `when` tells apart: one of each, and how many."""
    wanted = [allowed_values(param.when[path]) for param in space.values()
              if param.when and path in param.when]  # fmt: skip
    named: list[Any] = []
    for value in (value for values in wanted for value in values):
        if contains(space[path], value) and not any(is_same(value, seen) for seen in named):
            named.append(value)
    groups: dict[tuple[bool, ...], tuple[Any, int]] = {}
    for value in named:
        meets = tuple(any(is_same(value, one) for one in values) for values in wanted)
        first, size = groups.get(meets, (value, 0))
        groups[meets] = (first, size + 1)
    others = (listed(space[path]) or 0) - len(named)
    return [*groups.values(), *([(object(), others)] if others else [])]


def cycles(space: Mapping[str, Param]) -> list[str]:
    """The fields whose `when` leads back to themselves."""
    return [path for path in space if path in _ancestors(space, path)]


def _ancestors(space: Mapping[str, Param], path: str) -> set[str]:
    found: set[str] = set()
    left = _parents(space, path)
    while left:
        found |= left
        left = set().union(*(_parents(space, parent) for parent in left)) - found
    return found


def _parents(space: Mapping[str, Param], path: str) -> set[str]:
    return {parent for parent in space[path].when or {} if parent in space}
