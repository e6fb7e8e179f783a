from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from easyds_tune.data.records import (
    Conversation,
    PlainText,
    PreferencePair,
    Prompt,
    assistant,
    user,
)
from easyds_tune.data.template import Template
from easyds_tune.data.tokenise import IGNORED, Encoder
from easyds_tune.data.training_sets import (
    Fitted,
    dpo_dataset,
    fit_ppo,
    fit_sft,
    ppo_dataset,
    reward_dataset,
    sft_dataset,
)
from easyds_tune.spec.algorithm import Truncation
from tests.data.byte_tokenizer import CHATML, byte_tokenizer

BYTES = byte_tokenizer(eos_token="<|im_end|>")
SIDES = ("chosen_ids", "rejected_ids")

PAIRS = [
    PreferencePair((user("what is a stack?"),), "think of plates", "last in first out"),
    PreferencePair((user("什么是队列？"),), "想一想排队", "先进先出"),
]


@pytest.fixture
def plain(bytes_tokenizer: Any) -> Encoder:
    return Encoder(bytes_tokenizer, Template(None, "none"))


def texts(encoder: Encoder, fitted: Fitted, column: str) -> list[str]:
    return [str(encoder.tokenizer.decode(ids)) for ids in fitted.dataset[column]]


def chats(*questions: int) -> list[Conversation]:
    """Chats of a question of so many characters, its line break, a reply of 2 and an end token."""
    return [Conversation((user("x" * n), assistant("yz"))) for n in questions]


def test_conversations_over_max_length_are_left_out_unless_told_otherwise(plain: Encoder) -> None:
    whole = sft_dataset(chats(1, 2, 3), plain).dataset
    assert [len(row["input_ids"]) for row in whole] == [5, 6, 7]
    fitted = fit_sft(whole, 5)
    assert texts(plain, fitted, "input_ids") == ["x\nyz<|im_end|>"]
    assert fitted.dropped == {"longer than max_length 5": 2}
    assert not fitted.cut
    assert sft_dataset(chats(1, 2, 3), plain, 5).dataset.to_list() == fitted.dataset.to_list()
    assert fitted.dataset.column_names == ["input_ids", "labels"]


def test_keep_start_cuts_the_end_and_counts_the_replies_without_one(plain: Encoder) -> None:
    fitted = sft_dataset(chats(1, 3, 4), plain, 5, "keep_start")
    assert texts(plain, fitted, "input_ids") == ["x\nyz<|im_end|>", "xxx\ny"]
    assert [row["labels"][-1] != IGNORED for row in fitted.dataset] == [True, True]
    assert fitted.dropped == {"prompt fills max_length 5": 1}
    assert fitted.cut == {"reply": 1}


def test_keep_end_cuts_the_prompts_beginning_and_never_the_last_reply(plain: Encoder) -> None:
    fitted = sft_dataset(chats(1, 9), plain, 5, "keep_end")
    assert texts(plain, fitted, "input_ids") == ["x\nyz<|im_end|>", "x\nyz<|im_end|>"]
    assert [row["labels"][:2] for row in fitted.dataset] == [[IGNORED] * 2] * 2
    assert (fitted.cut, fitted.dropped.total()) == ({"prompt": 1}, 0)
    long_reply = [Conversation((user("q"), assistant("a" * 4)))]
    fitted = sft_dataset(long_reply, plain, 5, "keep_end")
    assert fitted.dropped == {"no room for the prompt in max_length 5": 1}
    assert sft_dataset([PlainText("abcdefg")], plain, 4, "keep_end").cut == {"prompt": 1}


def test_a_cut_that_would_leave_the_markup_alone_leaves_the_record_out(
    bytes_tokenizer: Any,
) -> None:
    """A reply without a question teaches nothing of the question."""
    jinja = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    jinja += "{% if add_generation_prompt %}[assistant]{% endif %}"
    template = Encoder(bytes_tokenizer, Template(jinja, "spec"))
    chat = [Conversation((user("what is a stack, and what is a queue?"), assistant("a list")))]
    (whole,) = sft_dataset(chat, template).dataset
    start = template.reply_start_length
    reply = sum(label != IGNORED for label in whole["labels"])
    asked = len(whole["input_ids"]) - reply - start
    least = start + min(8, asked // 4) + reply
    assert start > 0
    assert len(sft_dataset(chat, template, least, "keep_end").dataset) == 1
    left = sft_dataset(chat, template, least - 1, "keep_end")
    assert left.dropped == {f"no room for the prompt in max_length {least - 1}": 1}


def test_a_plain_text_cut_at_its_beginning_keeps_its_end(plain: Encoder) -> None:
    fitted = sft_dataset([PlainText("cdefg")], plain, 4, "keep_end")
    assert texts(plain, fitted, "input_ids") == ["efg<|im_end|>"]
    assert fitted.dataset["labels"][0] == fitted.dataset["input_ids"][0]


def test_a_cut_of_the_beginning_keeps_the_token_that_opens_every_text(
    stories_tokenizer: Any,
) -> None:
    encoder = Encoder(stories_tokenizer, Template(None, "none"))
    chat = [Conversation((user("one two three four five"), assistant("six")))]
    (whole,) = sft_dataset(chat, encoder).dataset
    length = len(whole["input_ids"])
    (row,) = sft_dataset(chat, encoder, length - 2, "keep_end").dataset
    assert row["input_ids"] == [whole["input_ids"][0], *whole["input_ids"][3:]]
    assert whole["input_ids"][0] == stories_tokenizer.bos_token_id


def pair_rows(*lengths: tuple[int, int, int]) -> list[PreferencePair]:
    """Pairs of a question, a better and a worse reply of so many characters each."""
    return [PreferencePair((user("x" * q),), "y" * c, "z" * r) for q, c, r in lengths]


def test_pairs_with_a_side_over_max_length_are_left_out_unless_told_otherwise(
    plain: Encoder,
) -> None:
    pairs = pair_rows((1, 2, 1), (1, 3, 1), (1, 1, 3), (9, 1, 1))
    for encoded in (dpo_dataset(pairs, plain, 5), reward_dataset(pairs, plain, 5)):
        assert len(encoded.dataset) == 1
        assert encoded.dropped == {"longer than max_length 5": 3}
        assert not encoded.cut


def test_keep_start_counts_the_cut_replies_of_each_side(plain: Encoder) -> None:
    pairs = pair_rows((1, 2, 1), (1, 3, 1), (1, 4, 3), (1, 2, 9), (1, 1, 9), (4, 1, 1))
    fitted = dpo_dataset(pairs, plain, 5, "keep_start")
    assert fitted.cut == {"chosen": 2, "rejected": 3, "only one side": 3}
    assert fitted.dropped == {"prompt fills max_length 5": 1}
    assert texts(plain, fitted, "chosen_ids")[:3] == ["yy<|im_end|>", "yyy", "yyy"]
    assert texts(plain, fitted, "rejected_ids")[:3] == ["z<|im_end|>", "z<|im_end|>", "zzz"]


def test_keep_end_cuts_the_same_from_the_prompt_of_both_sides(plain: Encoder) -> None:
    pairs = pair_rows((1, 2, 1), (9, 1, 2), (9, 4, 1))
    fitted = dpo_dataset(pairs, plain, 5, "keep_end")
    assert texts(plain, fitted, "prompt_ids") == ["x\n", "x\n"]
    assert texts(plain, fitted, "chosen_ids") == ["yy<|im_end|>", "y<|im_end|>"]
    assert fitted.cut == {"prompt": 1}
    assert fitted.dropped == {"no room for the prompt in max_length 5": 1}
    rewards = reward_dataset(pairs, plain, 5, "keep_end")
    assert texts(plain, rewards, "chosen_ids") == ["x\nyy<|im_end|>", "x\ny<|im_end|>"]
    assert texts(plain, rewards, "rejected_ids") == ["x\nz<|im_end|>", "x\nzz<|im_end|>"]
    assert (rewards.cut, rewards.dropped) == (fitted.cut, fitted.dropped)


@pytest.mark.parametrize("truncation", ["drop", "keep_start", "keep_end"])
@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 12)] * 3), min_size=1, max_size=8), st.integers(3, 16))
def test_no_row_is_longer_than_max_length_and_every_record_is_kept_or_counted(
    truncation: Truncation, lengths: list[tuple[int, int, int]], max_length: int
) -> None:
    encoder = Encoder(BYTES, Template(None, "none"))
    pairs = pair_rows(*lengths)
    conversations = [Conversation((*pair.prompt, assistant(pair.chosen))) for pair in pairs]
    end = BYTES.eos_token_id
    sft = sft_dataset(conversations, encoder, max_length, truncation)
    dpo = dpo_dataset(pairs, encoder, max_length, truncation)
    for fitted in (sft, dpo):
        assert len(fitted.dataset) + fitted.dropped.total() == len(pairs)
    rows = [row["prompt_ids"] + row[side] for row in dpo.dataset for side in SIDES]
    rows += [row["input_ids"] for row in sft.dataset]
    assert all(len(row) <= max_length for row in rows)
    unended = sum(row[-1] != end for row in rows)
    cut = sft.cut["reply"] + dpo.cut["chosen"] + dpo.cut["rejected"]
    assert unended == cut
    assert truncation == "keep_start" or unended == 0


def test_a_pairs_margin_reaches_the_reward_trainer_and_is_0_where_absent(plain: Encoder) -> None:
    without, some = PAIRS, [PAIRS[0], replace(PAIRS[1], margin=1.5)]
    assert "margin" not in reward_dataset(without, plain).dataset.column_names
    assert reward_dataset(some, plain, 64).dataset["margin"][:] == [0.0, 1.5]
    assert "margin" not in dpo_dataset(some, plain).dataset.column_names


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
    whole = ppo_dataset([Prompt((user("x" * n),)) for n in (3, 4, 5, 9)], plain).dataset
    assert [len(ids) for ids in whole["prompt_ids"]] == [4, 5, 6, 10]
    fitted = fit_ppo(whole, 5)
    assert [len(ids) for ids in fitted.dataset["prompt_ids"]] == [4, 5]
    assert [messages[0]["content"] for messages in fitted.dataset["messages"]] == ["xxx", "xxxx"]
    assert fitted.dropped == {"longer than max_prompt_length 5": 2}
    assert fit_ppo(whole, 10).dropped.total() == 0
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
    ours = dpo_dataset(PAIRS, Encoder(minimind_tokenizer, Template(CHATML, "spec")), 1024).dataset
    assert ours.to_list() == theirs.select_columns(ours.column_names).to_list()
