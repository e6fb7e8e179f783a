"""Whether a folder can be a reward model: from its configuration and its files' tables of contents.

No weights are read, so this can come before anything starts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from easyds_tune.data.records import user
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.errors import ModelError, Problem
from easyds_tune.models.check import (
    Shape,
    embedding_rows,
    missing_problems,
    quantised_problems,
    shape_problems,
    stored_shapes,
    token_problems,
)
from easyds_tune.models.load import expand_home, load_tokenizer, why_not
from easyds_tune.spec.check_model import classifier_problems
from easyds_tune.spec.judge import RewardModelRewardSpec

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."


def check_reward_model(spec: RewardModelRewardSpec) -> list[str]:
    """What keeps a model from being a reward model; empty where it looks like one.

    Raises ModelError where a configuration or a file cannot be read.
    """
    name = spec.model_name_or_path
    folder = expand_home(name)
    if (Path(folder) / "adapter_config.json").is_file():
        return check_adapter(name, trust_remote_code=spec.trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # Transformers raises many classes here, all of them about input
        # A mistyped folder such as results/mine looks like a hub name, and the hub's words mislead.
        here = Path(folder).is_dir()
        missing = "" if here else "there is no such folder here, and as a hub name: "
        raise ModelError(
            [f"{name}: the reward model does not load: {missing}{why_not(error)}"]
        ) from error
    architecture = (config.architectures or [""])[0]
    if problems := classifier_problems(name, architecture, config.num_labels):
        return problems
    stored = stored_shapes(sorted(Path(folder).glob("*.safetensors")))
    classifier = _skeleton(config, spec.trust_remote_code)
    if stored and not stored.keys() & _head_shapes(classifier).keys():
        return [
            f"{name}: a reward model's weights must hold its head, and there is none; train it "
            "with the rm algorithm, whose exports hold it"
        ]
    return [
        *quantised_problems(name, name, config),
        *shape_problems(name, name, classifier, stored),
        *missing_problems(name, name, classifier, stored),
        *_token_problems(name, name, classifier, spec.trust_remote_code),
    ]


def check_adapter(name: str, *, trust_remote_code: bool) -> list[str]:
    """What keeps an adapter folder from being a reward model; empty where it looks like one.

    name: as written in the spec. trust_remote_code: run code that its base brings along.
    Raises ModelError where a file in it cannot be read.
    """
    folder = Path(expand_home(name))
    adapter = _adapter_config(folder)
    if (task := adapter.get("task_type")) != "SEQ_CLS":
        return [
            f"{name}: a reward model's adapter must be of task type SEQ_CLS, got {task}; give one "
            "that was trained with the rm algorithm"
        ]
    base = str(adapter.get("base_model_name_or_path"))
    try:
        config = AutoConfig.from_pretrained(
            expand_home(base),
            revision=adapter.get("revision"),
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # as above
        return [
            f"{name}: the adapter's base {base} does not load: {why_not(error)}; put it there, "
            "or export the reward model with --merge"
        ]
    if not (folder / ADAPTER_WEIGHTS).is_file():
        return [f"{name}: has no weights, no {ADAPTER_WEIGHTS}; export the reward model again"]
    if quantised := quantised_problems(name, base, config):
        return quantised
    stored = stored_shapes([folder / ADAPTER_WEIGHTS])
    if problems := _head_problems(name, config, stored, trust_remote_code):
        return problems
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    return [
        *_adapter_shape_problems(name, base, config, stored, trust_remote_code),
        *_token_problems(
            name,
            name if has_tokenizer else base,
            _skeleton(config, trust_remote_code),
            trust_remote_code,
        ),
    ]


def _adapter_shape_problems(
    name: str,
    base: str,
    config: PretrainedConfig,
    stored: dict[str, Shape],
    trust_remote_code: bool,
) -> list[str]:
    """An adapter whose tensors have other sizes than on its base; what is missing, loading says."""
    adapter = PeftConfig.from_pretrained(expand_home(name))
    try:
        with torch.random.fork_rng(devices=[]):  # PEFT draws weights
            model = get_peft_model(_skeleton(config, trust_remote_code), adapter)
    except ValueError as error:
        return [f"{name}: the adapter does not fit its base {base}: {why_not(error)}"]
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    for tensor, value in wanted.items():
        needed, found = tuple(value.shape), stored.get(tensor)
        if found is not None and found != needed:
            problem = Problem(
                name,
                f"must fit its base {base}, {tensor} of {list(needed)}",
                str(list(found)),
                "correct base_model_name_or_path in adapter_config.json",
            )
            return [str(problem)]
    return []


def _token_problems(
    name: str, tokenizer_name: str, classifier: PreTrainedModel, trust_remote_code: bool
) -> list[str]:
    """Special tokens, and those of the chat template, that the embedding has no row for."""
    tokenizer = load_tokenizer(tokenizer_name, trust_remote_code=trust_remote_code)
    encoder = Encoder(tokenizer, choose_template(tokenizer, None))
    rows = embedding_rows(classifier)
    return token_problems(name, tokenizer, rows, encoder.prompts([[user("?")]]))


def _head_problems(
    name: str, config: PretrainedConfig, stored: dict[str, Shape], trust_remote_code: bool
) -> list[str]:
    """What is wrong with the head that an adapter brings for a base of this configuration."""
    architecture = (config.architectures or [""])[0]
    base_has_head = architecture.endswith("ForSequenceClassification")
    config.num_labels = 1
    problems = []
    for tensor, shape in _head_shapes(_skeleton(config, trust_remote_code)).items():
        found = stored.get(PEFT_PREFIX + tensor)
        if found is None and not base_has_head:
            problems.append(
                f"{name}: a reward model's adapter must hold its head, and {tensor} is missing "
                "(it would be random); train it with the rm algorithm, whose exports hold it"
            )
        elif found is not None and found[0] != shape[0] == 1:
            problems.append(
                f"{name}: a reward model must have exactly one output, got {found[0]}; give an "
                "adapter that was trained with the rm algorithm"
            )
    return problems[:1]


def _skeleton(config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """A classifier's modules without their weights."""
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(
                config, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # whatever the class, or code that the model brings along, raises
        raise ModelError(
            [f"{config.name_or_path}: the reward model does not load: {why_not(error)}"]
        ) from error


def _head_shapes(classifier: PreTrainedModel) -> dict[str, Shape]:
    """Shapes of a classifier's weights outside its trunk, by name."""
    trunk = f"{classifier.base_model_prefix}."
    return {
        name: tuple(weight.shape)
        for name, weight in classifier.named_parameters()
        if not name.startswith(trunk)
    }


def _adapter_config(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ModelError([f"{file}: is not a valid adapter configuration"])
    return config
