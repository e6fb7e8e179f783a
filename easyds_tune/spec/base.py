"""The base of every spec class: frozen, and strict about unknown keys."""

from __future__ import annotations

import os
import re
import sys
import typing
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LARGEST = 2**31 - 1
"""Upper bound of counts that have no narrower one: what every library below can hold."""
LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger seed."""


def _a_file_can_be_called(name: str) -> str:
    if "\0" in name:
        raise ValueError("must not hold a zero character, which no file name has")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"must be a name that this shell's encoding, {sys.getfilesystemencoding()}, can write, "
            f"got {name!r}; set PYTHONUTF8=1 in the environment"
        ) from error
    if max(len(part) for part in encoded.split(b"/")) > 255:
        raise ValueError("must have at most 255 bytes between two slashes, as file names do")
    return name


BYTE_UNITS = {
    unit: 1000**power for power, unit in enumerate(("B", "KB", "MB", "GB", "TB", "PB"))
} | {unit: 1024**power for power, unit in enumerate(("KIB", "MIB", "GIB", "TIB", "PIB"), start=1)}


def _count_bytes(value: Any) -> Any:
    """Text such as 20GB as a number of bytes; a number as it is."""
    if not isinstance(value, str | bool):
        return value
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)\s*", str(value))
    if found is None or found[2].upper() not in BYTE_UNITS:
        raise ValueError(f"must be a number of bytes, or one with a unit as in 20GB, got {value!r}")
    return round(float(found[1]) * BYTE_UNITS[found[2].upper()])


ByteCount = Annotated[int, BeforeValidator(_count_bytes), Field(ge=1, lt=2**63)]
"""Bytes, as a number or as text with a unit: kB, MB, GB, TB in thousands, KiB, MiB in 1,024s."""

FileName = Annotated[str, Field(min_length=1), AfterValidator(_a_file_can_be_called)]
"""A path, or a hub name that a folder of this name would stand for."""


class Spec(BaseModel):
    """Immutable settings; an unknown key is an error; field docstrings are the documentation."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _a_switch_is_no_number(cls, raw: Any) -> Any:
        # Pydantic reads true as 1. As text it is refused, at the path where it stands.
        if not isinstance(raw, dict):
            return raw
        switches = {
            key: str(value).lower()
            for key, value in raw.items()
            if isinstance(value, bool) and _takes_numbers(cls, key)
        }
        return {**raw, **switches}


def written_fields(cls: type[BaseModel]) -> dict[str, Any]:
    """The fields of a spec class by the names they have in the YAML."""
    return {field.alias or name: field for name, field in cls.model_fields.items()}


def _takes_numbers(cls: type[BaseModel], name: Any) -> bool:
    field = cls.model_fields.get(name)
    if field is None:
        return False
    kinds = {field.annotation, *typing.get_args(field.annotation)}
    return bool(kinds & {int, float}) and bool not in kinds
