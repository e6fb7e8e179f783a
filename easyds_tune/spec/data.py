"""What a person may write about data: where records come from, how to read them, what is held out.

Only names and checks live here; reading files is `easyds_tune.data`.
"""

from __future__ import annotations

import codecs
from collections import Counter
from typing import Literal

from pydantic import Field, field_validator, model_validator

from easyds_tune.spec.base import LARGEST, FileName, Spec

RecordFormat = Literal[
    "auto",
    "messages",
    "prompt-completion",
    "preference",
    "prompt",
    "text",
    "alpaca",
    "sharegpt",
    "hh",
    "cvalues",
    "easyds-sft",
    "easyds-reward",
    "easyds-ppo",
]


class DataSource(Spec):
    """One file or one `datasets` name; a plain string in YAML is its path."""

    path: FileName
    """A .jsonl, .json, .csv, .tsv or .parquet file (also .gz), else a name for `datasets`, or a
    folder (also one of `save_to_disk`)."""
    config: str | None = None
    """Configuration of a `datasets` name; files have none."""
    split: str | None = None
    """Split of a `datasets` name, train if absent; files have none."""
    format: RecordFormat = "auto"
    """How records are laid out; auto recognises it from the columns of all records. A named format
    overrules every guess: prompts and replies are text as they stand, KTO labels are only noted."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Renames columns: {name in the file: name the format expects}."""
    encoding: str = "auto"
    """Text encoding; auto is UTF-8 (with or without BOM), then GB18030, and never a guess."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """Character between the fields of a .csv or .tsv file; absent: a comma, in .tsv a tab."""
    limit: int | None = Field(None, ge=1, le=LARGEST)
    """Use only the first n usable records."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        if value != "auto":
            try:
                codecs.lookup(value)
            except (LookupError, ValueError) as error:
                raise ValueError(
                    f"encoding must be auto or one that Python knows, got {value!r}; "
                    "for Chinese files it is mostly utf-8 or gb18030"
                ) from error
        return value

    @field_validator("delimiter")
    @classmethod
    def _can_delimit(cls, value: str | None) -> str | None:
        if value is not None and value != "\t" and (not value.isprintable() or value in '" '):
            raise ValueError(f"delimiter must be a visible character or a tab, got {value!r}")
        return value

    @field_validator("columns")
    @classmethod
    def _distinct_targets(cls, value: dict[str, str]) -> dict[str, str]:
        twice = sorted(target for target, times in Counter(value.values()).items() if times > 1)
        if twice:
            raise ValueError(
                f"columns must not map two columns to one name, got {', '.join(twice)} twice; "
                "keep one of them"
            )
        return value


class DataSpec(Spec):
    """The records that train, the ones that are held out, and how a chat becomes text."""

    train: tuple[DataSource, ...] = Field(min_length=1)
    """Training records: one source or a list, read in order."""
    eval: tuple[DataSource, ...] | None = Field(None, min_length=1)
    """Held-out records for loss and accuracy; without it eval_fraction of train is held out."""
    eval_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the training prompts held out where eval is absent; more is a steadier measure."""
    chat_template: str | None = None
    """Jinja text, a path to a .jinja file, or none for plain text; absent: the tokenizer's own."""

    @field_validator("train", "eval", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return value if value is None or isinstance(value, list | tuple) else [value]
