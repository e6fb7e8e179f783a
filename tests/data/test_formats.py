"""The columns that every format shares: a system prompt, a margin, a history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.data.read import ReadReport
from easyds_tune.data.records import Conversation, PreferencePair, Prompt, assistant, user
from easyds_tune.errors import DataError

Reader = Callable[..., ReadReport]
SYSTEM = {"role": "system", "content": "s"}
PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize("name", ["system", "system_prompt"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"messages": [user("q"), assistant("a")]},
        {"messages": [SYSTEM, user("q"), assistant("a")]},
        {"messages": [{"role": "system", "content": ""}, user("q"), assistant("a")]},
        {"conversations": TURNS},
        {"instruction": "q", "output": "a"},
        {"input": "q", "output": "a"},
    ],
)
def test_a_system_prompt_is_used_beside_conversations(
    read_jsonl: Reader, name: str, row: dict[str, Any]
) -> None:
    report = read_jsonl([{**row, name: "s"}], "conversations")
    assert report.records == [Conversation((SYSTEM, user("q"), assistant("a")))]
    assert report.notes == []


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
        {"prompt": "q", "pos_resp": "good", "neg_resp": "bad"},
        {"instruction": "q", "output": ["good", "bad"]},
        {"chosen": "\n\nHuman: q\n\nAssistant: good",
         "rejected": "\n\nHuman: q\n\nAssistant: bad"},
        {"conversations": TURNS[:1], "chosen": {"from": "gpt", "value": "good"},
         "rejected": {"from": "gpt", "value": "bad"}},
    ],
)  # fmt: skip
def test_a_system_prompt_and_a_margin_are_used_beside_pairs(
    read_jsonl: Reader, row: dict[str, Any]
) -> None:
    report = read_jsonl([{**row, "system": "s", "margin": 2}], "preferences")
    assert report.records == [PreferencePair((SYSTEM, user("q")), "good", "bad", margin=2.0)]
    assert report.notes == []


def test_a_masked_turn_stays_masked_behind_a_system_prompt(read_jsonl: Reader) -> None:
    chat = [user("q"), {**assistant("x"), "weight": 0}, user("q2"), assistant("a")]
    [record] = read_jsonl([{"messages": chat, "system": "s"}], "conversations").records
    assert record.context == (2,)


def test_two_different_system_prompts_are_left_out(read_jsonl: Reader) -> None:
    rows = [{"messages": [SYSTEM, user("q"), assistant("a")], "system": text} for text in "st"]
    report = read_jsonl(rows, "conversations")
    assert (len(report.records), report.dropped) == (1, {"two different system prompts": 1})


def test_a_prompt_has_its_system_prompt_too(read_jsonl: Reader) -> None:
    report = read_jsonl([{"prompt": "q", "system": "s"}], "prompts")
    assert report.records == [Prompt((SYSTEM, user("q")))]


@pytest.mark.parametrize(
    ("margin", "expected"), [(0, 0.0), (-1.5, -1.5), (" 3 ", 3.0), ("", None), (None, None)]
)
def test_a_margin_is_a_number_or_the_text_of_one(
    read_jsonl: Reader, margin: object, expected: float | None
) -> None:
    [pair] = read_jsonl([{**PAIR, "margin": margin}], "preferences").records
    assert pair.margin == expected


@pytest.mark.parametrize("margin", ["much", "inf", True, [1], 10**400])
def test_any_other_margin_is_refused(read_jsonl: Reader, margin: object) -> None:
    with pytest.raises(DataError, match="margin must be a finite number, got"):
        read_jsonl([{**PAIR, "margin": margin}], "preferences")


def test_a_margin_beside_prompts_and_scores_beside_pairs_are_noted(read_jsonl: Reader) -> None:
    row = {**PAIR, "margin": 1, "score_chosen": 3, "score_rejected": 1}
    note = read_jsonl([row], "prompts").notes
    assert note == ["not used: margin, score_chosen, score_rejected (1 values)"]
    assert read_jsonl([row], "preferences").notes == [
        "not used: score_chosen, score_rejected (1 values)"
    ]


def test_a_history_opens_the_chat_in_every_format(read_jsonl: Reader) -> None:
    row = {"prompt": "q2", "completion": "a2", "history": [["q", "a"]]}
    [record] = read_jsonl([row], "conversations").records
    assert [message["content"] for message in record.messages] == ["q", "a", "q2", "a2"]
    with pytest.raises(DataError, match="or rename the column with `columns`"):
        read_jsonl([{**row, "history": "1999"}], "conversations")
    renamed = read_jsonl([{**row, "history": "1999"}], "conversations", columns={"history": "past"})
    assert renamed.notes == ["not used: past (1 values)"]


def test_a_prompt_that_a_dialogue_repeats_is_used_and_another_is_noted(read_jsonl: Reader) -> None:
    sides = {n: [user("q"), assistant(n)] for n in ("chosen", "rejected")}
    assert read_jsonl([{**sides, "prompt": "q"}], "preferences").notes == []
    assert read_jsonl([{**sides, "prompt": [user("q")]}], "preferences").notes == []
    note = read_jsonl([{**sides, "prompt": "other"}], "preferences").notes
    assert note == ["not used: prompt (1 values)"]


def test_a_prompt_that_ends_with_the_assistants_turn_is_left_out(read_jsonl: Reader) -> None:
    chat = [user("q"), assistant("So")]
    rows = [{"prompt": prompt, "completion": "a"} for prompt in (chat, chat[:1])]
    report = read_jsonl(rows, "conversations")
    assert report.dropped == {"the prompt ends with the assistant's turn": 1}
