"""Read `spec.resolved.json`: what a sweep really ran with."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from easyds_tune.errors import SpecError
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.sweep import SweepSpec

WRITTEN_NAME = "spec.yaml"
"""The spec as its author wrote it."""
RESOLVED_NAME = "spec.resolved.json"
UNFINISHED_RESOLVED_NAME = f".{RESOLVED_NAME}.unfinished"


@dataclass(frozen=True)
class Resolved:
    """A sweep's complete spec, and what was found when it started.

    given: the spec as its author gave it last; `spec` differs by what the sweep was extended by.
    working_folder: where the relative paths of the spec stand.
    data_hashes: SHA-256 of the records of each part: train, held_out, prompts.
    fingerprints: SHA-256 of what else the spec's fields name on the machine; None where the sweep
    began with a release that kept none.
    points: configurations tried right after the default one. simulate: the curves that stood in for
    training, None where trials were trained. versions: releases of what the numbers depend on.
    """

    spec: SweepSpec
    given: SweepSpec
    data_hashes: dict[str, str]
    working_folder: Path
    points: list[dict[str, Any]] = field(default_factory=list)
    simulate: Path | None = None
    versions: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] | None = None

    def base(self) -> ModelSpec:
        """The base model, with a local path made independent of the working folder."""
        model = self.spec.model
        local = self.working_folder / os.path.expanduser(model.model_name_or_path)
        if not local.is_dir():
            return model
        return model.model_copy(update={"model_name_or_path": str(local.resolve())})


def load_resolved(folder: Path) -> Resolved:
    """Read a sweep folder's resolved spec; SpecError where it is missing or damaged."""
    path = folder / RESOLVED_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Resolved(
            spec=SweepSpec.model_validate(raw["spec"]),
            given=SweepSpec.model_validate(raw.get("given", raw["spec"])),
            data_hashes=raw["data_hashes"],
            working_folder=Path(raw["working_folder"]),
            points=raw.get("points", []),
            simulate=Path(raw["simulate"]) if raw.get("simulate") else None,
            versions=raw.get("versions", {}),
            fingerprints=raw.get("fingerprints"),
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise SpecError([f"{path}: cannot be read as a resolved spec: {error}"]) from error
