"""Conditional search: which fields a configuration has, by the `when` of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easyds_tune.spec.search import Param


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
