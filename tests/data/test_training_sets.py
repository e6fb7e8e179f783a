from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from easyds_tune.data.records import Conversation, PreferencePair, Prompt, assistant, user
from easyds_tune.data.template import Template
from easyds_tune.data.tokenise import IGNORED, Encoder
from easyds_tune.data.training_sets import (
    dpo_dataset,
    fit_dpo,
    fit_ppo,
    fit_reward,
    fit_sft,
    ppo_dataset,
    reward_dataset,
    sft_dataset,
)
from tests.data.byte_tokenizer import CHATML

PAIRS = [
    PreferencePair((user("what is a stack?"),), "think of plates", "last in first out"),
    PreferencePair((user("什么是队列？"),), "想一想排队", "先进先出"),
]


@pytest.fixture
def plain(bytes_tokenizer: Any) -> Encoder:
    return Encoder(bytes_tokenizer, Template(None, "none"))


def test_sft_rows_are_cut_at_max_length_and_dropped_without_a_reply(plain: Encoder) -> None:
    chats = [Conversation((user("x" * n), assistant("yz"))) for n in (2, 4, 5)]
    whole = sft_dataset(chats, plain).dataset
    assert [len(row["input_ids"]) for row in whole] == [5, 7, 8]
    fitted = fit_sft(whole, 5)
    assert [row["labels"][-1] != IGNORED for row in fitted.dataset] == [True, True]
    assert [len(row["labels"]) for row in fitted.dataset] == [5, 5]
    assert fitted.dropped == {"prompt fills max_length 5": 1}
    assert sft_dataset(chats, plain, 5).dataset.to_list() == fitted.dataset.to_list()


def test_dpo_rows_whose_prompt_fills_max_length_are_dropped(plain: Encoder) -> None:
    pairs = [PreferencePair((user("x" * n),), "y", "z") for n in (4, 5, 6)]
    fitted = fit_dpo(dpo_dataset(pairs, plain).dataset, 5)
    assert [len(row["prompt_ids"]) for row in fitted.dataset] == [4]
    assert fitted.dropped == {"prompt fills max_length 5": 2}


def test_reward_rows_hold_prompt_and_reply_and_none_is_cut(plain: Encoder) -> None:
    pairs = [PreferencePair((user("xx"),), "y", "z" * n) for n in (2, 3)]
    fitted = fit_reward(reward_dataset(pairs, plain).dataset, 5)
    (row,) = fitted.dataset
    assert plain.tokenizer.decode(row["chosen_ids"]) == "xxy<|im_end|>"
    assert plain.tokenizer.decode(row["rejected_ids"]) == "xxzz<|im_end|>"
    assert fitted.dropped == {"longer than max_length 5": 1}


def test_no_limit_drops_nothing(plain: Encoder) -> None:
    for encoded in (dpo_dataset(PAIRS, plain), reward_dataset(PAIRS, plain)):
        assert (len(encoded.dataset), encoded.dropped.total()) == (2, 0)


def test_ppo_rows_hold_a_prompts_tokens_and_its_messages(plain: Encoder) -> None:
    chats = [(user("a"),), (user("b"), assistant("c"), user("什么？"))]
    rows = ppo_dataset([Prompt(chat) for chat in chats], plain).dataset
    assert rows.column_names == ["prompt_ids", "messages"]
    assert rows["prompt_ids"][:] == plain.prompts(chats)
    assert [tuple(messages) for messages in rows["messages"]] == chats


def test_ppo_prompts_past_the_limit_are_left_out_and_none_is_cut(plain: Encoder) -> None:
    whole = ppo_dataset([Prompt((user("x" * n),)) for n in (3, 5, 6, 9)], plain).dataset
    assert [len(ids) for ids in whole["prompt_ids"]] == [3, 5, 6, 9]
    fitted = fit_ppo(whole, 5)
    assert [len(ids) for ids in fitted.dataset["prompt_ids"]] == [3, 5]
    assert [messages[0]["content"] for messages in fitted.dataset["messages"]] == ["xxx", "xxxxx"]
    assert fitted.dropped == {"longer than max_prompt_length 5": 2}
    assert fit_ppo(whole, 9).dropped.total() == 0
    assert fit_ppo(whole, None).dataset is whole


def test_the_same_records_give_the_same_bits_and_fingerprint(plain: Encoder) -> None:
    first, second = (dpo_dataset(PAIRS, plain, 64).dataset for _ in range(2))
    assert first.to_list() == second.to_list()
    assert first._fingerprint == second._fingerprint
    assert first._fingerprint != dpo_dataset(PAIRS[:1], plain, 64).dataset._fingerprint


def test_trl_tokenises_chat_pairs_to_the_same_ids(minimind_tokenizer: Any) -> None:
    from trl import DPOConfig, DPOTrainer

    class Bare(DPOTrainer):
        """Only `_prepare_dataset`, which needs the tokenizer and no model."""

        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer

    rows = [
        {
            "prompt": list(pair.prompt),
            "chosen": [assistant(pair.chosen)],
            "rejected": [assistant(pair.rejected)],
        }
        for pair in PAIRS
    ]
    minimind_tokenizer.chat_template, own = CHATML, minimind_tokenizer.chat_template
    arguments = DPOConfig.__new__(DPOConfig)
    arguments.dataset_num_proc, arguments.max_length = None, 1024
    arguments.truncation_mode = "keep_start"
    try:
        theirs = Bare(minimind_tokenizer)._prepare_dataset(
            Dataset.from_list(rows), minimind_tokenizer, arguments, "train"
        )
    finally:
        minimind_tokenizer.chat_template = own
    ours = dpo_dataset(PAIRS, Encoder(minimind_tokenizer, Template(CHATML, "spec"))).dataset
    assert ours.to_list() == theirs.select_columns(ours.column_names).to_list()
