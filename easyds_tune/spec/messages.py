"""Pydantic's errors in the words of this project: path, rule, value, remedy."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from easyds_tune.spec.sweep import SweepSpec


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean x?` for a near miss, else an empty text."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def model_at(model: type[BaseModel], key: str, raw: Any = None) -> type[BaseModel] | None:
    """The spec class of a field, told apart by `type` where there are several."""
    field = model.model_fields.get(key)
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
            model = model_at(model, str(key), raw) if model else None
    return ".".join(parts), model


def validation_problems(error: ValidationError, raw: dict[str, Any]) -> list[str]:
    """One line a problem, in the order of the fields, without repeats."""
    lines: list[str] = []
    for item in error.errors():
        kind, value = item["type"], item["input"]
        path, model = _path_and_model(item["loc"], raw, kind in ("extra_forbidden", "missing"))
        if kind == "extra_forbidden":
            known = list(model.model_fields) if model else []
            word = path.rsplit(".", 1)[-1]
            text = f"unknown key{did_you_mean(word, known)}"
        elif kind == "missing":
            text = "is required and missing"
        elif kind.startswith("union_tag"):
            text = item["msg"].replace("Input tag", "type")
        else:
            text = item["msg"].removeprefix("Value error, ")
            if kind != "value_error":
                text = f"{text[0].lower()}{text[1:]}, got {value!r}"
        line = f"{path}: {text}" if path else text
        if line not in lines:
            lines.append(line)
    return lines
