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


def sides(*shared: dict[str, str]) -> dict[str, Any]:
    return {name: [*shared, assistant(name)] for name in ("chosen", "rejected")}


@pytest.mark.parametrize(
    ("prompt", "shared", "expected"),
    [
        ("q", [user("q")], [user("q")]),
        ([user("q")], [user("q")], [user("q")]),
        ("", [user("q")], [user("q")]),
        ("q2", [user("q"), assistant("a"), user("q2")], [user("q"), assistant("a"), user("q2")]),
        ([SYSTEM, user("q")], [user("q")], [SYSTEM, user("q")]),
        ("q", [SYSTEM, user("q ")], [SYSTEM, user("q ")]),
        ([SYSTEM], [user("q")], [SYSTEM, user("q")]),
        ("q", [assistant("a"), user("q2")], [user("q"), assistant("a"), user("q2")]),
        ("q", [assistant("a"), user("q")], [user("q"), assistant("a"), user("q")]),
        ([user("q"), assistant("a")], [user("q2")], [user("q"), assistant("a"), user("q2")]),
    ],
)
def test_a_pair_has_its_prompt_before_the_shared_turns_once(
    read_jsonl: Reader, prompt: object, shared: list[Any], expected: list[Any]
) -> None:
    report = read_jsonl([{"prompt": prompt, **sides(*shared)}], "preferences")
    assert report.records == [PreferencePair(tuple(expected), "chosen", "rejected")]
    assert report.notes == []
    if prompt and shared[-1]["role"] == "user":
        row = {"prompt": prompt, "completion": [*shared, assistant("a3")]}
        [chat] = read_jsonl([row], "conversations").records
        assert chat.messages == (*expected, assistant("a3"))


def test_a_prompt_that_contradicts_the_dialogue_leaves_the_record_out(read_jsonl: Reader) -> None:
    rows = [{"prompt": prompt, **sides(user("q"))} for prompt in ("q", "other")]
    report = read_jsonl(rows, "preferences")
    assert report.dropped == {"the prompt differs from the dialogue's beginning": 1}
    rows = [{"prompt": prompt, "completion": [user("q"), assistant("a")]} for prompt in ("q", "x")]
    report = read_jsonl(rows, "conversations")
    assert report.records == [Conversation((user("q"), assistant("a")))]
    assert report.dropped == {"the prompt differs from the dialogue's beginning": 1}


def test_a_prompt_that_ends_with_the_assistants_turn_is_left_out(read_jsonl: Reader) -> None:
    chat = [user("q"), assistant("So")]
    rows = [{"prompt": prompt, "completion": "a"} for prompt in (chat, chat[:1])]
    report = read_jsonl(rows, "conversations")
    assert report.dropped == {"the prompt ends with the assistant's turn": 1}
