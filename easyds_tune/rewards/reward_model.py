"""A trained reward model as a reward: a sequence classifier with one output.

A text is put together as the reward-model algorithm trains on it (the same Encoder, with the
reward model's own tokenizer and chat template): prompt, reply, end token. So a policy of another
tokenizer is scored on its text, not on its ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from easyds_tune import progress
from easyds_tune.data.records import Message, PreferencePair
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.errors import ModelError
from easyds_tune.models.load import context_length, expand_home, load_tokenizer, why_not
from easyds_tune.rewards.check import ADAPTER_WEIGHTS, check_adapter
from easyds_tune.rewards.shared_base import classifier_on
from easyds_tune.spec.judge import RewardModelRewardSpec


class RewardModel:
    """Scores replies with a frozen model; keeps that model in memory."""

    def __init__(
        self,
        spec: RewardModelRewardSpec,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        batch_size: int = 32,
        base: PreTrainedModel | None = None,
    ) -> None:
        """Raises ModelError where the folder holds no trained reward model.

        batch_size: texts a forward pass; changes memory and speed only.
        base: a causal model on `device`, without an adapter yet, whose weights to stand on instead
        of loading them again; only where `shared_base.shares_base` says so. Its weights stay as
        they are, `requires_grad` included; where they are sharded (ZeRO-3), gather them to score.
        """
        name = expand_home(spec.model_name_or_path)
        if (Path(name) / "adapter_config.json").is_file():
            model, tokenizer_name = _load_adapter(name, dtype, base, spec.trust_remote_code)
        else:
            assert base is None
            model, tokenizer_name = _load_whole(name, dtype, spec.trust_remote_code), name
        tokenizer = load_tokenizer(tokenizer_name, trust_remote_code=spec.trust_remote_code)
        classifier = model.get_base_model() if isinstance(model, PeftModel) else model
        # Classifiers read the score at the last token that is not padding.
        classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        shared = {id(weight) for weight in base.parameters()} if base is not None else set()
        for weight in model.parameters():
            if id(weight) not in shared:
                weight.requires_grad_(False)
        self._model = model.to(device).eval()
        self._device = device
        self._encoder = Encoder(tokenizer, choose_template(tokenizer, None))
        self._pad_token_id = tokenizer.pad_token_id
        # A learned first token (CLS above all) has to outlive the truncation.
        self._opening_ids = {tokenizer.bos_token_id, tokenizer.cls_token_id}
        self._max_length = min(spec.max_length, context_length(classifier) or spec.max_length)
        self._batch_size = batch_size

    def score(self, prompts: Sequence[tuple[Message, ...]], replies: Sequence[str]) -> Tensor:
        """One score per reply: float32 of shape (replies,), on the CPU."""
        rows = self.input_ids(prompts, replies)
        # Neighbours in length share a batch; the longest come first.
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        scores = torch.zeros(len(rows))
        with torch.no_grad():
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                scores[batch] = self._forward([rows[index] for index in batch])
                progress.made()
        return scores

    def input_ids(
        self, prompts: Sequence[tuple[Message, ...]], replies: Sequence[str]
    ) -> list[list[int]]:
        """What the model reads for each reply; a text that is too long loses its beginning."""
        pairs = [
            PreferencePair(prompt, reply, reply)
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return [
            self._truncate(pair["prompt_ids"] + pair["chosen_ids"])
            for pair in self._encoder.pairs(pairs)
        ]

    def _truncate(self, ids: list[int]) -> list[int]:
        if len(ids) <= self._max_length:
            return ids
        kept = 1 if ids[0] in self._opening_ids else 0
        return ids[:kept] + ids[kept - self._max_length :]

    def _forward(self, rows: Sequence[list[int]]) -> Tensor:
        width = max(map(len, rows))
        padding = [width - len(row) for row in rows]
        ids = [row + [self._pad_token_id] * pad for row, pad in zip(rows, padding, strict=True)]
        mask = [[1] * (width - pad) + [0] * pad for pad in padding]
        logits: Tensor = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=torch.tensor(mask, device=self._device),
        ).logits
        return logits[:, 0].float().cpu()


def _load_whole(name: str, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    try:
        # Missing weights are drawn (and refused below); that must not move the global generator.
        with torch.random.fork_rng(devices=[]):
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                name, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
            )
    # Transformers raises many classes here, all of them about what it was given.
    except Exception as error:
        raise _does_not_load(name, error) from error
    outputs = model.config.num_labels
    problems = []
    if outputs != 1:
        problems.append(
            f"{name}: a reward model must have exactly one output, got {outputs}; give a model "
            "that was trained with the rm algorithm, or one saved with num_labels 1"
        )
    if missing := sorted(loading["missing_keys"]):
        problems.append(
            f"{name}: a reward model must hold all of its weights, and {', '.join(missing[:3])} "
            "would be random; train it with the rm algorithm first"
        )
    if problems:
        raise ModelError(problems)
    return model


def _load_adapter(
    name: str, dtype: torch.dtype, base: PreTrainedModel | None, trust_remote_code: bool
) -> tuple[PeftModel, str]:
    """The model of an adapter folder, and the name that its tokenizer is loaded by."""
    if problems := check_adapter(name, trust_remote_code=trust_remote_code):
        raise ModelError(problems)
    classifier = classifier_on(base) if base is not None else None
    try:
        config = PeftConfig.from_pretrained(name)
        base_name = expand_home(str(config.base_model_name_or_path))
        # A head and an adapter are drawn at random, then replaced by the folder's.
        with torch.random.fork_rng(devices=[]), _gradients_as_they_are(base):
            if classifier is None:
                classifier = AutoModelForSequenceClassification.from_pretrained(
                    base_name,
                    revision=config.revision,
                    trust_remote_code=trust_remote_code,
                    num_labels=1,
                    dtype=dtype,
                )
            model = PeftModel.from_pretrained(classifier, name, config=config)
    except Exception as error:
        raise _does_not_load(name, error) from error
    if gaps := _gaps(model, Path(name)):
        raise ModelError(
            [
                f"{name}: the adapter must fit its base {base_name}, and {len(gaps)} tensors have "
                f"no counterpart, the first is {gaps[0]}; was it trained on another model?"
            ]
        )
    has_tokenizer = (Path(name) / "tokenizer_config.json").is_file()
    return model, name if has_tokenizer else base_name


def _gaps(model: PeftModel, folder: Path) -> list[str]:
    """Tensors of the model's adapter and head that the folder's file does not hold.

    PEFT only warns of them and goes on with random ones.
    """
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
        return sorted(wanted - set(file.keys()))


@contextmanager
def _gradients_as_they_are(base: PreTrainedModel | None) -> Iterator[None]:
    """PEFT freezes what it puts an adapter on; a base that is lent is given back as it was."""
    flags = [(weight, weight.requires_grad) for weight in base.parameters()] if base else []
    try:
        yield
    finally:
        for weight, requires_grad in flags:
            weight.requires_grad_(requires_grad)


def _does_not_load(name: str, error: Exception) -> ModelError:
    return ModelError([f"{name}: the reward model does not load: {why_not(error)}"])
