"""What a policy starts from: a whole model, or a base with the LoRA adapter of a folder on it.

Files alone are read here; `stack` puts the adapters on a live model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from pydantic import BaseModel, FiniteFloat, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedTokenizerBase

from easyds_tune.errors import ModelError
from easyds_tune.models.load import expand_home, load_tokenizer, why_not
from easyds_tune.spec.model import ModelSpec

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PLACE_AND_SCALE = {
    "r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "lora_dropout",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "fan_in_fan_out", "init_lora_weights",
}  # fmt: skip
"""Settings that say where A and B stand and how they are scaled: these an adapter may choose."""
ORIGIN = {
    "base_model_name_or_path", "revision", "peft_type", "task_type", "auto_mapping",
    "peft_version", "inference_mode",
}  # fmt: skip
MERGE = "merge it first with `easyds-tune export NAME --to DIR --merge`"


class _Settings(BaseModel, strict=True):
    """What PEFT takes for granted about the settings that it computes with."""

    r: PositiveInt = 8
    lora_alpha: FiniteFloat = 8
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, PositiveInt] | None = None
    alpha_pattern: dict[str, FiniteFloat] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The model that a trial starts from."""

    base: ModelSpec
    """The spec of the plain base; all but its name and revision are the trial's own."""
    adapter: Path | None
    """The folder of the adapter on it, which stays frozen; None for a whole model."""


def start_of(spec: ModelSpec) -> Start:
    """Where a model spec leads: its own base, or the base that its adapter folder names.

    Raises ModelError, with all problems, for an adapter on which no other can be stacked: one that
    is not plain LoRA of a language model, or whose base is missing, quantised or an adapter itself.
    """
    folder = Path(expand_home(spec.model_name_or_path))
    if not (folder / CONFIG).is_file():
        return Start(spec, None)
    folder = folder.resolve()
    config = _read_config(folder)
    base = _base_of(spec, config)
    found = _config_problems(config) + _weight_problems(folder) + _base_problems(base)
    problems = [f"{folder}: {problem}" for problem in found]
    if spec.lora_r is None:
        problems.append(
            f"model.lora_r: must be a rank where the model is an adapter, {folder}, got null: the "
            f"base under it cannot be trained whole; set model.lora_r: 16, or {MERGE}"
        )
    if problems:
        raise ModelError(problems)
    return Start(base, folder)


def load_start_tokenizer(start: Start) -> PreTrainedTokenizerBase:
    """The tokenizer the start was trained with: its adapter's where it has one, else the base's.

    Raises ModelError as `load_tokenizer` does.
    """
    base = start.base
    if start.adapter is not None and (start.adapter / "tokenizer_config.json").is_file():
        return load_tokenizer(str(start.adapter), trust_remote_code=base.trust_remote_code)
    return load_tokenizer(base.model_name_or_path, base.revision, base.trust_remote_code)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError([f"{folder}: {CONFIG} cannot be read: {error}"]) from error
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        got = "" if name is None else f", got {json.dumps(name)}"
        raise ModelError(
            [
                f"{folder}: {CONFIG} must name its base in base_model_name_or_path, as text{got}; "
                "write it there"
            ]
        )
    return config


def _config_problems(config: dict[str, Any]) -> list[str]:
    """Settings by which an adapter is more than A, B and a scale on the base's own modules."""
    kind = (config.get("peft_type"), config.get("task_type"))
    if kind != ("LORA", "CAUSAL_LM"):
        return [
            f"must be a LORA adapter of task type CAUSAL_LM, got {kind[0]} of {kind[1]}; "
            "give one that sft or dpo trained, or a whole model"
        ]
    try:
        _Settings.model_validate(config)
    except ValidationError as error:
        first = {item["loc"][0]: item for item in reversed(error.errors())}
        return [
            f"{name} in {CONFIG} {item['msg'].replace('Input should', 'must')}, got "
            f"{json.dumps(config[str(name)])}; correct it, or export the adapter again"
            for name, item in reversed(first.items())
        ]
    # Compared as JSON: there tuples are lists. A setting that is unknown here is left at nothing.
    plain = json.loads(json.dumps(asdict(LoraConfig()), default=str))
    problems = [
        f"{name} must be {json.dumps(plain.get(name))} for an adapter to stand under another, "
        f"got {json.dumps(value)}; {MERGE}"
        for name, value in config.items()
        if name not in PLACE_AND_SCALE | ORIGIN and (value or None) != (plain.get(name) or None)
    ]
    drawn = config.get("init_lora_weights", True)
    if drawn not in (True, False, "gaussian"):  # PiSSA and its kin change the base's weights
        problems.append(
            f"init_lora_weights must be true, false or gaussian for an adapter to stand under "
            f"another, got {drawn}; {MERGE}"
        )
    return problems


def _weight_problems(folder: Path) -> list[str]:
    """What is wrong with the adapter's weights; pickled ones are never read."""
    if not (folder / WEIGHTS).is_file():
        return [f"must hold {WEIGHTS}, and it is not there; save the adapter as safetensors"]
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        return [f"{WEIGHTS} is not whole ({error}); fetch it again, with git lfs if it came by git"]
    # Loaded, a whole weight would take the place of the base's own, for all trials to come.
    whole = [name for name in names if ".lora_" not in name]
    if whole:
        return [
            f"{WEIGHTS} must hold LoRA weights alone, and has {len(whole)} others, the first is "
            f"{whole[0]}; {MERGE}"
        ]
    return []


def _base_of(spec: ModelSpec, config: dict[str, Any]) -> ModelSpec:
    name = config["base_model_name_or_path"]
    local = Path(expand_home(name))
    if local.is_dir():
        name = str(local.resolve())
    return spec.model_copy(update={"model_name_or_path": name, "revision": config.get("revision")})


def _base_problems(base: ModelSpec) -> list[str]:
    name = base.model_name_or_path
    if (Path(name) / CONFIG).is_file():
        return [f"its base must be a whole model, and {name} is an adapter; {MERGE}"]
    try:
        config = AutoConfig.from_pretrained(
            name, revision=base.revision, trust_remote_code=base.trust_remote_code
        )
    except Exception as error:  # Transformers raises many classes here, all of them about input
        return [
            f"its base {name} does not load: {why_not(error)}; put it back, or correct "
            f"base_model_name_or_path in {CONFIG}"
        ]
    if config.to_dict().get("quantization_config") is not None:
        return [
            f"its base must not be quantised, and {name} is; name the model that it was made "
            f"from as base_model_name_or_path in {CONFIG}"
        ]
    return []
