"""Pydantic's errors in the words of this project: path, rule, value, remedy."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from easyds_tune.spec.base import written_fields
from easyds_tune.spec.sweep import SweepSpec

PARAM_KEYS = ["low", "high", "log", "step", "choice", "type", "when"]
BOUND_KEYS = ["min", "max", "from_step", "patience", "hard"]
REMOVED = {
    "training.bf16": "set model.dtype: bfloat16",
    "training.fp16": "set model.dtype: float16",
    "algorithm.vf_coef": "the value head has its own optimizer now: set value_learning_rate, or "
    "remove it",
}
"""Fields of earlier versions and of TRL's configs, and what to write instead."""
TOO_SHORT = "must hold at least 1 value"
RULES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text without half a surrogate pair",
    "string_too_short": "must not be empty",
    "too_short": "must hold at least {min_length} value",
    "too_long": "must hold at most {max_length} values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
}
"""Pydantic's error types that a YAML value can meet, as rules."""


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean x?` for a near miss, else an empty text."""
    near = near_miss(word, known)
    return f"; did you mean {near}?" if near else ""


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest, if it is near enough to be what was meant."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return near[0] if near else None


def shown(value: object) -> str:
    """A value as YAML or else Python writes it, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


def model_at(model: type[BaseModel], key: str, raw: Any = None) -> type[BaseModel] | None:
    """The spec class of a field, told apart by `type` where there are several."""
    field = written_fields(model).get(key)
    if field is None:
        return None
    classes = list(_spec_classes(field.annotation))
    if len(classes) > 1 and isinstance(raw, dict):
        wanted = raw.get("type")
        for cls in classes:
            tag = cls.model_fields.get("type")
            if tag is not None and wanted in typing.get_args(tag.annotation):
                return cls
    return classes[0] if len(classes) == 1 else None


def _spec_classes(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _spec_classes(part)


def _path_and_model(
    loc: tuple[int | str, ...], raw: Any, names_a_key: bool
) -> tuple[str, type[BaseModel] | None]:
    """The YAML path of an error, without the names pydantic adds for union members."""
    parts: list[str] = []
    model: type[BaseModel] | None = SweepSpec
    for position, key in enumerate(loc):
        last = position == len(loc) - 1
        known = (isinstance(raw, dict) and key in raw) or (
            isinstance(raw, list) and isinstance(key, int) and key < len(raw)
        )
        if not known and not (last and names_a_key):
            continue
        parts.append(str(key))
        if not last:
            raw = raw[key]
            if not isinstance(key, int):  # the items of a list are of one class
                model = model_at(model, key, raw) if model else None
    return ".".join(parts), model


def validation_problems(error: ValidationError, raw: dict[str, Any]) -> list[str]:
    """One line a problem, in the order of the fields, without repeats."""
    found: dict[str, list[tuple[str, str]]] = {}
    for item in error.errors(include_url=False):
        names_a_key = item["type"] in ("extra_forbidden", "missing")
        path, model = _path_and_model(item["loc"], raw, names_a_key)
        path, text, value = _told(dict(item), path, model)
        if (text, value) not in found.setdefault(path, []):
            found[path].append((text, value))
    lines = []
    above = {path[: dot.start()] for path in found for dot in re.finditer(r"\.", path)}
    for path, told in found.items():
        if len(told) > 1:  # a list is also too short where its one item is refused
            told = [(text, value) for text, value in told if text != TOO_SHORT] or told
        # What is wrong inside a value says more than that the value is of the wrong kind.
        if path in above:
            continue
        for value in dict.fromkeys(value for _, value in told):
            texts = [text for text, its_value in told if its_value == value]
            # A field that takes several kinds has one error for each of them.
            line = " or ".join([texts[0], *(text.removeprefix("must be ") for text in texts[1:])])
            lines.append(f"{path}: {line}{value}" if path else f"{line}{value}")
    return lines


def _told(item: dict[str, Any], path: str, model: type[BaseModel] | None) -> tuple[str, str, str]:
    """(path, rule, value and remedy) of one pydantic error."""
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    leaf = path.rsplit(".", 1)[-1]
    if kind == "extra_forbidden":
        return path, "unknown key", _other_keys(path, leaf, model)
    if kind == "missing":
        return path, "is required and missing", ""
    if kind == "value_error":
        return path, item["msg"].removeprefix("Value error, ").removeprefix(f"{leaf} "), ""
    if kind in ("literal_error", "union_tag_invalid"):
        known = re.findall(r"'([^']*)'", context.get("expected") or context["expected_tags"])
        got = value if kind == "literal_error" else value.get("type")
        where = path if kind == "literal_error" else f"{path}.type"
        hint = did_you_mean(got, known) if isinstance(got, str) else ""
        return where, f"must be {_listed(known)}", f", got {shown(got)}{hint}"
    if kind == "union_tag_not_found":
        return f"{path}.type", "is required and missing", ""
    if kind == "model_attributes_type" and path.startswith("search_space."):
        rule = "must be a range such as {low: 1, high: 8} or a list of values"
        return path, rule, f", got {shown(value)}"
    if kind == "model_type" and path.startswith("bounds."):
        return path, "must be a bound such as {max: 0.2}", f", got {shown(value)}"
    limits = {
        name: int(limit) if isinstance(limit, float) and limit.is_integer() else limit
        for name, limit in context.items()
    }
    rule = RULES.get(kind, item["msg"][0].lower() + item["msg"][1:]).format(**limits)
    # `str` ends the place of a field that takes text among other kinds.
    quote = kind == "string_type" and isinstance(value, int | float) and item["loc"][-1] != "str"
    return path, rule, f", got {shown(value)}{'; put it in quotes' if quote else ''}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _other_keys(path: str, word: str, model: type[BaseModel] | None) -> str:
    """What an unknown key was probably meant to be, or what there is."""
    if path.startswith("search_space."):
        return did_you_mean(word, PARAM_KEYS) or f"; a range has {', '.join(PARAM_KEYS)}"
    if path.startswith("bounds."):
        return did_you_mean(word, BOUND_KEYS) or f"; a bound has {', '.join(BOUND_KEYS)}"
    if path in REMOVED:
        return f"; {REMOVED[path]}"
    known = list(written_fields(model)) if model else []
    near = did_you_mean(word, known)
    if near or not known:
        return near
    for section, field in written_fields(SweepSpec).items():
        # The same path is a field of another algorithm.
        elsewhere = f"{section}.{word}" != path
        if elsewhere and any(word in cls.model_fields for cls in _spec_classes(field.annotation)):
            return f"; did you mean {section}.{word}?"
    return f"; known here: {', '.join(known)}"
