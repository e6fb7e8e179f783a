"""Makes the bundled tiny models, `data/models/tiny-tutor` and `data/models/tiny-reward`.

    python data/make_models.py [--to FOLDER]

tiny-tutor is the *base* of the demo: a Qwen2 of a million parameters that writes fluent replies, of
which about half guide the student, so that SFT, DPO and PPO have something to improve. tiny-reward
scores a reply to a prompt and starts from tiny-tutor. Both are trained by easyds_tune's own
algorithms, every weight of them, on dialogues drawn from `dialogues.py`; about ten minutes on one
core.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from dialogues import (
    Point,
    Turn,
    giving_reply,
    guiding_reply,
    leaking_reply,
    load_curriculum,
    off_topic_reply,
    training_turn,
    vague_reply,
)
from make_data import preference_rows
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from easyds_tune.algorithms import rm, sft
from easyds_tune.algorithms.row import TrialInputs
from easyds_tune.data.records import Conversation, PreferencePair, assistant, user
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.data.training_sets import reward_dataset, sft_dataset
from easyds_tune.models.deepspeed import start_distributed
from easyds_tune.spec.sweep import SweepSpec, TrialSpec, trial_spec

HERE = Path(__file__).parent
CPU = torch.device("cpu")
VOCABULARY, CONTEXT = 2048, 512
BASE_DIALOGUES, REWARD_PAIRS, REFERENCE_DIALOGUES = 80_000, 12_000, 1000
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
# ChatML. The newline stands before a turn, not after it, so that a conversation ends with the very
# token that generation stops at, which is also where the reward is read.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
)
# How often the base has read each way of replying.
BASE_MIX = {
    "guiding": 0.38,
    "giving": 0.34,
    "leaking": 0.16,
    "vague": 0.07,
    "off-topic": 0.05,
}
TUTOR_TRAINING = {
    "max_steps": 2600,
    "per_device_train_batch_size": 32,
    "learning_rate": 4e-3,
}
REWARD_TRAINING = {
    "max_steps": 600,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=HERE / "models", help="folder to write to")
    folder: Path = parser.parse_args().to
    start_distributed(CPU)
    points = load_curriculum()
    dialogues = list(base_dialogues(points, BASE_DIALOGUES, seed=21))
    tokenizer = train_tokenizer([text for pair in dialogues for text in pair])
    encoder = Encoder(tokenizer, choose_template(tokenizer, None))
    tutor = train_tutor(tokenizer, encoder, dialogues)
    save(tutor, tokenizer, folder / "tiny-tutor")
    reward = train_reward(tutor, tokenizer, encoder, preference_rows(points, REWARD_PAIRS, seed=22))
    centre_and_scale(reward, encoder, list(base_dialogues(points, REFERENCE_DIALOGUES, seed=23)))
    save(reward, tokenizer, folder / "tiny-reward")


def base_dialogues(points: Sequence[Point], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(user, reply) in the mix of BASE_MIX, outside of the judge's combinations."""
    rng = random.Random(seed)
    for _ in range(count):
        turn = training_turn(rng, points)
        (way,) = rng.choices(list(BASE_MIX), weights=list(BASE_MIX.values()))
        yield turn.text, compose_reply(rng, turn, way, points)


def compose_reply(rng: random.Random, turn: Turn, way: str, points: Sequence[Point]) -> str:
    """A reply in one of the ways of BASE_MIX."""
    if way == "off-topic":
        return off_topic_reply(rng, turn, points)
    ways: dict[str, Callable[[random.Random, Turn], str]] = {
        "guiding": guiding_reply,
        "giving": giving_reply,
        "leaking": leaking_reply,
        "vague": vague_reply,
    }
    return ways[way](rng, turn)


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text goes through it and comes back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def train_tutor(
    tokenizer: PreTrainedTokenizerFast, encoder: Encoder, dialogues: Sequence[tuple[str, str]]
) -> Qwen2ForCausalLM:
    """A new Qwen2 trained on the replies, as one SFT trial over all its weights."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=352,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    records = [Conversation((user(text), assistant(reply))) for text, reply in dialogues]
    data = sft_dataset(records, encoder).dataset
    spec = full_trial(
        "sft",
        {**TUTOR_TRAINING, "training_arguments": {"train_sampling_strategy": "group_by_length"}},
    )
    train(sft.train, spec, model, tokenizer, data)
    return model


def train_reward(
    tutor: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    encoder: Encoder,
    rows: Sequence[dict[str, Any]],
) -> Qwen2ForSequenceClassification:
    """The tutor's body with a scalar head, as one reward-model trial over all its weights."""
    torch.manual_seed(0)
    config = copy.deepcopy(tutor.config)
    config.num_labels = 1
    model = Qwen2ForSequenceClassification(config)
    model.model.load_state_dict(tutor.model.state_dict())
    data = reward_dataset([as_pair(row) for row in rows], encoder).dataset
    train(rm.train, full_trial("rm", REWARD_TRAINING), model, tokenizer, data)
    return model


def as_pair(row: dict[str, Any]) -> PreferencePair:
    """An EasyDS reward row as a record."""
    prompt, chosen = row["chosen"].removeprefix("用户: ").split("\n助手: ")
    return PreferencePair((user(prompt),), chosen, row["rejected"].split("\n助手: ")[1])


def full_trial(algorithm: str, training: dict[str, Any]) -> TrialSpec:
    """One trial over every weight: no adapter, no judge, one evaluation at the end."""
    sweep = SweepSpec.model_validate(
        {
            "name": f"make-{algorithm}",
            "algorithm": {"type": algorithm, "max_length": CONTEXT},
            "model": {"model_name_or_path": "given", "lora_r": None, "dtype": "float32"},
            "data": {"train": "given"},
            "training": {
                "weight_decay": 0.05,
                "adam_beta2": 0.98,
                "warmup_steps": 0.05,
                "eval_steps": 100,
                **training,
            },
            "deepspeed": "zero0",
        }
    )
    return trial_spec(sweep, "000", {})


def train(
    algorithm: Callable[[TrialSpec, TrialInputs], Iterator[Any]],
    spec: TrialSpec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: Dataset,
) -> None:
    """Runs the trial to its end; `model` is trained in place."""

    def no_reference() -> PreTrainedModel:
        raise AssertionError("neither SFT nor a reward model has a reference")

    inputs = TrialInputs(model, tokenizer, data, None, CPU, no_reference)
    for row in algorithm(spec, inputs):
        print(f"{spec.algorithm.type} step {row.step:5d} {row.metrics}", flush=True)
    model.eval()
    with torch.no_grad():  # what `save` will round away is gone before anything is measured
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16))


@torch.no_grad()
def centre_and_scale(
    model: Qwen2ForSequenceClassification,
    encoder: Encoder,
    dialogues: Sequence[tuple[str, str]],
) -> None:
    """Changes the head so that the base's kind of replies score 0 on average, with a spread of 1.

    The head has no bias. With m the mean of the hidden states h that it reads, adding
    c·m/|m|² to its weight moves the mean score by exactly c, and single scores hardly otherwise.
    """
    hidden = torch.cat(
        [
            model.model(input_ids=torch.tensor([ids])).last_hidden_state[:, -1]
            for ids in (dialogue_ids(encoder, *dialogue) for dialogue in dialogues)
        ]
    )  # (dialogue, hidden)
    mean = hidden.mean(dim=0)
    weight = model.score.weight[0]
    weight -= (hidden @ weight).mean() * mean / mean.dot(mean)
    weight /= (hidden @ weight).std()


def dialogue_ids(encoder: Encoder, text: str, reply: str) -> list[int]:
    return encoder.conversation(Conversation((user(text), assistant(reply))))["input_ids"]


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in bfloat16 to halve the files; the configuration has them loaded as float32."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    model.config.use_cache = True  # the trainer switched it off
    model.save_pretrained(
        folder, state_dict={name: value.to(torch.bfloat16) for name, value in state.items()}
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
