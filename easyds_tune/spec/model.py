"""The base model and the LoRA adapter trained on it. Names are Transformers' and PEFT's."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from easyds_tune.spec.base import LARGEST, FileName, Spec


class ModelSpec(Spec):
    """Which weights a trial starts from and which of them it may change."""

    model_name_or_path: FileName
    """A local folder or a hub name."""
    revision: str | None = None
    """Hub branch, tag or commit; ignored for a local folder."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type the base is loaded in; `auto` is bfloat16 on a GPU that has it, else float32."""
    attn_implementation: str | None = None
    """Attention kernel by Transformers' name, such as `sdpa`; null lets Transformers choose."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless written here, and shown by `plan`."""
    lora_r: int | None = Field(16, ge=1, le=LARGEST)
    """Rank of the adapter; null trains every weight of the model instead."""
    lora_alpha: int = Field(32, ge=1, le=LARGEST)
    """Scale of the adapter's output: alpha / r (alpha / sqrt(r) with `use_rslora`)."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    lora_target_modules: str | list[str] = "all-linear"
    """Module names that get an adapter, such as [q_proj, v_proj], a regex, or `all-linear`."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r), so that the best learning rate depends less on the rank."""

    @field_validator("lora_target_modules")
    @classmethod
    def _targets_are_named(cls, targets: str | list[str]) -> str | list[str]:
        if not targets or (isinstance(targets, list) and "" in targets):
            raise ValueError("must name at least one module; write all-linear for all")
        if isinstance(targets, str):
            try:
                re.compile(targets)
            # Too many repetitions and too many brackets are errors of their own.
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(
                    "must be a list of names or a regular expression, got "
                    f"{targets!r:.100}: {error}"
                ) from error
        return targets
