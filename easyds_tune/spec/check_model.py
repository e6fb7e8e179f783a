"""What the config.json of a local model tells about a spec, read as plain JSON: no library loads.

`plan` checks only this; the preflight loads the configuration and checks the rest.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from easyds_tune.spec.algorithm import PPOSpec, length_field, length_limit
from easyds_tune.spec.check import ADAPTER_CONFIG
from easyds_tune.spec.judge import RewardModelRewardSpec
from easyds_tune.spec.sweep import SweepSpec

CLASSIFIER = "ForSequenceClassification"
"""How Transformers' class names of reward models end."""
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
"""Names under which architectures store the length of their context."""


class ModelConfig(NamedTuple):
    """The parts of a model's configuration that a spec can contradict."""

    architecture: str
    """Class name of the saved model; empty if the file does not say."""
    positions: int | None
    """Length of the context in tokens; None if the file does not say."""
    outputs: int
    """Outputs of a classifier's head."""


def read_model_config(name: str) -> ModelConfig | None:
    """The configuration of a model folder, or of the base under an adapter folder.

    None for a hub name, and where a file cannot be read as expected (the preflight says why).
    """
    try:
        folder = Path(os.path.expanduser(name))
        if (folder / ADAPTER_CONFIG).is_file():
            adapter = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            folder = Path(os.path.expanduser(adapter["base_model_name_or_path"]))
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = raw.get("text_config", raw)
        positions = next((text[key] for key in POSITIONS if key in text), None)
        return ModelConfig(
            architecture=str((raw.get("architectures") or [""])[0]),
            positions=None if positions is None else int(positions),
            outputs=len(raw["id2label"]) if "id2label" in raw else int(raw.get("num_labels", 2)),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None


def reward_specs(spec: SweepSpec) -> dict[str, RewardModelRewardSpec]:
    """The section of each reward -> its spec."""
    rewards = {}
    if spec.judge is not None:
        rewards["judge"] = spec.judge.reward
    if isinstance(spec.algorithm, PPOSpec):
        rewards["algorithm"] = spec.algorithm.reward
    return rewards


def model_config_problems(spec: SweepSpec) -> list[str]:
    """What local configurations say against the spec: kinds of models, and lengths."""
    problems = []
    name = spec.model.model_name_or_path
    config = read_model_config(name)
    if config is not None:
        problems += [
            f"model.model_name_or_path: {problem}"
            for problem in policy_problems(spec, name, config.architecture)
        ]
        problems += length_problems(spec, config.positions)
    for section, reward in reward_specs(spec).items():
        path = reward.model_name_or_path
        is_adapter = os.path.isfile(os.path.join(os.path.expanduser(path), ADAPTER_CONFIG))
        if is_adapter or (config := read_model_config(path)) is None:
            continue
        problems += [
            f"{section}.reward.model_name_or_path: {problem}"
            for problem in classifier_problems(path, config.architecture, config.outputs)
        ]
    return problems


def policy_problems(spec: SweepSpec, name: str, architecture: str) -> list[str]:
    """Why a model of this architecture cannot be trained to write; empty for a reward model."""
    if spec.algorithm.type == "rm" or not architecture.endswith(CLASSIFIER):
        return []
    return [
        f"{name}: must be a language model, and it is a {architecture}, which writes nothing; a "
        "reward model goes under reward"
    ]


def classifier_problems(name: str, architecture: str, outputs: int) -> list[str]:
    """Why a whole model of this architecture is no reward model."""
    if architecture.endswith(CLASSIFIER) and outputs == 1:
        return []
    return [
        f"{name}: a reward model must be a sequence classifier with one output, got "
        f"{architecture or 'no architecture'} with {outputs}; train one with the rm algorithm"
    ]


def length_problems(spec: SweepSpec, positions: int | None) -> list[str]:
    """Lengths, written or searched, that the model has no positions for; positions: how many."""
    if positions is None:
        return []
    if isinstance(spec.algorithm, PPOSpec):
        longest = max(searched(spec, "algorithm.response_length", spec.algorithm.response_length))
        if longest < positions:
            return []
        return [
            f"algorithm.response_length: must leave room for a prompt in the model's {positions} "
            f"positions, got {longest}; lower it"
        ]
    field = length_field(spec.algorithm)
    unwritten = "" if field in spec.algorithm.model_fields_set else ", the default"
    return [
        f"algorithm.{field}: must be within the model's {positions} positions, got {length}"
        f"{unwritten}; set algorithm.{field}: {positions}, or fewer"
        for length in searched(spec, f"algorithm.{field}", length_limit(spec.algorithm))
        if length > positions
    ]


def searched(spec: SweepSpec, path: str, default: Any) -> list[Any]:
    """The spec's value of a field and the end points it is searched between."""
    param = spec.search_space.get(path)
    return [default, *(param.end_points() if param else [])]


def unchecked_models(spec: SweepSpec) -> list[str]:
    """Models whose configuration is not on this machine, so `plan` tells nothing about them."""
    names = [spec.model.model_name_or_path]
    names += [reward.model_name_or_path for reward in reward_specs(spec).values()]
    return [name for name in dict.fromkeys(names) if read_model_config(name) is None]
