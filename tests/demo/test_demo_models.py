"""The bundled models do what the data card says: fluent, half of it guiding, a fair judge."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from dialogues import (
    Point,
    giving_reply,
    guides,
    guiding_reply,
    held_out_turn,
    load_curriculum,
)
from make_models import base_dialogues
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel

from easyds_tune.data.read import read
from easyds_tune.data.records import Conversation, PreferencePair, assistant, user
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.models.generate import Sampling, generate
from easyds_tune.models.load import load_model, load_tokenizer
from easyds_tune.spec.data import DataSource
from easyds_tune.spec.model import ModelSpec

DATA = Path(__file__).parents[2] / "data"
TUTOR, REWARD = DATA / "models" / "tiny-tutor", DATA / "models" / "tiny-reward"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = load_tokenizer(str(TUTOR))
    return Encoder(tokenizer, choose_template(tokenizer, None))


@pytest.fixture(scope="module")
def tutor() -> PreTrainedModel:
    return load_model(ModelSpec(model_name_or_path=str(TUTOR)), "causal", CPU)


@pytest.fixture(scope="module")
def reward() -> PreTrainedModel:
    return load_model(ModelSpec(model_name_or_path=str(REWARD)), "reward", CPU)


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return load_curriculum()


@torch.no_grad()
def scores(
    reward: PreTrainedModel, encoder: Encoder, dialogues: Sequence[tuple[str, str]]
) -> Tensor:
    """The reward of each (user, reply), shape (dialogue,)."""
    records = [Conversation((user(text), assistant(reply))) for text, reply in dialogues]
    rows = [torch.tensor(row["input_ids"]) for row in encoder.conversations(records)]
    padding = encoder.tokenizer.pad_token_id
    ids = pad_sequence(rows, batch_first=True, padding_value=padding)
    return reward(input_ids=ids, attention_mask=(ids != padding).long()).logits[:, 0]


def test_the_folders_are_small_and_the_tutor_has_a_million_parameters(
    tutor: PreTrainedModel,
) -> None:
    files = [path for path in (DATA / "models").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    assert 900_000 < tutor.num_parameters() < 1_100_000


def test_the_weights_load_as_float32_though_stored_in_half_of_it() -> None:
    assert AutoModelForCausalLM.from_pretrained(TUTOR).dtype == torch.float32


@pytest.mark.parametrize("text", ["栈是后进先出的。", "O(log n)，对吗？\n🙂", "naïve  <b> 龘", ""])
def test_any_text_comes_back_from_the_tokenizer(encoder: Encoder, text: str) -> None:
    assert encoder.tokenizer.decode(encoder.tokenizer(text)["input_ids"]) == text


def test_a_conversation_ends_with_the_token_that_generation_stops_at(encoder: Encoder) -> None:
    row = encoder.conversation(Conversation((user("什么是图？"), assistant("看看地铁线路图。"))))
    end = encoder.tokenizer.eos_token_id
    assert row["input_ids"][-1] == row["labels"][-1] == end
    assert encoder.tokenizer.pad_token_id != end
    prompt = encoder.prompt_ids((user("什么是图？"),))
    assert row["input_ids"][: len(prompt)] == prompt


@torch.no_grad()
def test_guiding_replies_to_held_out_turns_are_likely_under_the_base(
    tutor: PreTrainedModel, encoder: Encoder, points: list[Point]
) -> None:
    rng, total, count = random.Random(3), 0.0, 0
    for point in points[::2]:
        turn = held_out_turn(rng, point)
        record = Conversation((user(turn.text), assistant(guiding_reply(rng, turn))))
        row = {name: torch.tensor([ids]) for name, ids in encoder.conversation(record).items()}
        learnt = int((row["labels"] != -100).sum())
        total += tutor(**row).loss.item() * learnt
        count += learnt
    assert total / count < 0.55  # nats per token; 0.43 when it was made


def test_about_half_of_the_bases_replies_guide_and_all_end(
    tutor: PreTrainedModel, encoder: Encoder
) -> None:
    lines = (DATA / "easyds" / "judge_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:96]]
    end = encoder.tokenizer.eos_token_id
    replies = generate(
        tutor,
        encoder.prompts([(user(row["input"]),) for row in rows]),
        Sampling(max_new_tokens=64, temperature=0.7),
        eos_token_ids=[end],
        pad_token_id=encoder.tokenizer.pad_token_id,
    )
    assert sum(reply[-1] == end for reply in replies) >= 94
    texts = [encoder.text(reply) for reply in replies]
    guiding = sum(guides(text, row["answer"]) for text, row in zip(texts, rows, strict=True))
    assert 0.3 < guiding / len(rows) < 0.7


def test_the_reward_model_is_right_about_most_pairs_it_has_not_seen(
    reward: PreTrainedModel, encoder: Encoder
) -> None:
    source = DataSource(path=str(DATA / "easyds" / "preferences.jsonl"), limit=200)
    pairs = [
        pair for pair in read(source, "preferences").records if isinstance(pair, PreferencePair)
    ]
    texts = [pair.prompt[0]["content"] for pair in pairs]
    chosen = scores(reward, encoder, list(zip(texts, [p.chosen for p in pairs], strict=True)))
    rejected = scores(reward, encoder, list(zip(texts, [p.rejected for p in pairs], strict=True)))
    # One label in twenty is wrong, so nobody can be right about all of them.
    assert 0.9 < (chosen > rejected).float().mean() < 1


def test_the_reward_model_prefers_a_hint_to_the_answer_on_held_out_turns(
    reward: PreTrainedModel, encoder: Encoder, points: list[Point]
) -> None:
    rng = random.Random(4)
    turns = [held_out_turn(rng, point) for point in points]
    hints = scores(reward, encoder, [(turn.text, guiding_reply(rng, turn)) for turn in turns])
    answers = scores(reward, encoder, [(turn.text, giving_reply(rng, turn)) for turn in turns])
    assert (hints > answers).float().mean() > 0.95


def test_the_bases_kind_of_replies_score_zero_on_average_with_a_spread_of_one(
    reward: PreTrainedModel, encoder: Encoder, points: list[Point]
) -> None:
    rewards = scores(reward, encoder, list(base_dialogues(points, 200, seed=99)))
    assert abs(rewards.mean()) < 0.2
    assert 0.8 < rewards.std() < 1.2
