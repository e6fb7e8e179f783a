"""Whether a folder can be a reward model, from its configuration alone: no weights are read."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoConfig

from easyds_tune.errors import ModelError
from easyds_tune.models.load import expand_home
from easyds_tune.spec.judge import RewardModelRewardSpec


def check_reward_model(spec: RewardModelRewardSpec) -> list[str]:
    """What keeps a model from being a reward model; empty where it looks like one.

    The weights themselves are checked where the model is loaded. Raises ModelError where the
    configuration does not load.
    """
    name = spec.model_name_or_path
    folder = expand_home(name)
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file():
        try:
            task = json.loads(adapter.read_text(encoding="utf-8")).get("task_type")
        except (ValueError, AttributeError) as error:
            raise ModelError([f"{adapter}: is not a valid adapter configuration"]) from error
        if task == "SEQ_CLS":
            return []
        return [f"{name}: a reward model's adapter must be of task type SEQ_CLS, got {task}"]
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # Transformers raises many classes here, all of them about input
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        # A mistyped folder such as results/mine looks like a hub name, and the hub's words mislead.
        here = Path(folder).is_dir()
        missing = "" if here else "there is no such folder here, and as a hub name: "
        raise ModelError([f"{name}: the reward model does not load: {missing}{reason}"]) from error
    architecture = (config.architectures or ["no architecture"])[0]
    if not architecture.endswith("ForSequenceClassification") or config.num_labels != 1:
        return [
            f"{name}: a reward model must be a sequence classifier with one output, got "
            f"{architecture} with {config.num_labels}; train one with the rm algorithm"
        ]
    return []
