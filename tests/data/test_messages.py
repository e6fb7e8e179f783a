"""Masks of turns, what a chat cannot carry, and the ways in which messages are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import Conversation, PreferencePair, Prompt, assistant, user
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

Reader = Callable[..., ReadReport]
FOUR = (user("q"), assistant("wrong"), user("no"), assistant("right"))


def chat(*masks: object, key: str = "weight") -> dict[str, Any]:
    """`FOUR` with the masks on its two replies."""
    found = [dict(message) for message in FOUR]
    for message, mask in zip(found[1::2], masks, strict=False):
        if mask is not None:
            message[key] = mask  # type: ignore[assignment]
    return {"messages": found}


@pytest.mark.parametrize(
    "key", ["weight", "loss", "loss_mask", "loss_weight", "trainable", "train", "training"]
)
@pytest.mark.parametrize(("off", "on"), [(0, 1), (False, True), (0.0, None), ("false", "true")])
def test_a_masked_reply_is_context(read_jsonl: Reader, key: str, off: object, on: object) -> None:
    [record] = read_jsonl([chat(off, on, key=key)], "conversations").records
    assert record == Conversation(FOUR, context=(1,))


def test_a_mask_is_read_beside_from_and_value_and_in_a_list_beside_the_messages(
    read_jsonl: Reader,
) -> None:
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[m["role"]], "value": m["content"]} for m in FOUR]
    masked = [turns[0], {**turns[1], "loss": False}, *turns[2:]]
    expected = [Conversation(FOUR, context=(1,))]
    assert read_jsonl([{"conversations": masked}], "conversations").records == expected
    listed = {**chat(), "loss_mask": [0, 0, 0, 1]}
    assert read_jsonl([listed], "conversations").records == expected
    with pytest.raises(DataError, match=r"one entry for each of the 4 messages, got 2"):
        read_jsonl([{**chat(), "loss_mask": [0, 1]}], "conversations")


def test_turns_after_the_last_trained_reply_are_cut_and_counted(read_jsonl: Reader) -> None:
    report = read_jsonl([chat(1, 0), chat(0, 0), chat(1, 1)], "conversations")
    assert report.records == [Conversation(FOUR[:2]), Conversation(FOUR)]
    assert report.dropped == {"every reply is masked": 1}
    assert report.notes == ["1 conversations end at their last trained reply; later turns are cut"]


def test_a_mask_does_not_shorten_a_prompt(read_jsonl: Reader) -> None:
    assert read_jsonl([chat(1, 0)], "prompts").records == [Prompt(FOUR[:3])]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"weight": 0.5}, r"messages\[1\].weight must be 0 or 1 .* got float 0.5; round it"),
        ({"loss": "maybe"}, r"messages\[1\].loss must be 0 or 1"),
        ({"weight": 1, "train": False}, "must not be both trained and masked"),
        ({"mask": 1}, "write `weight: 0` on a message that is not trained"),
        ({"train_detail": [{"train": False}]}, "write `weight: 0`"),
    ],
)
def test_an_unclear_mask_is_refused_with_a_remedy(
    read_jsonl: Reader, message: dict[str, Any], problem: str
) -> None:
    row = {"messages": [FOUR[0], {**FOUR[1], **message}]}
    with pytest.raises(DataError, match=problem):
        read_jsonl([row], "conversations")


def test_a_mask_of_zero_on_a_question_is_natural_and_of_one_is_noted(read_jsonl: Reader) -> None:
    row = {"messages": [{**FOUR[0], "weight": 0}, {**FOUR[1], "weight": 1}]}
    assert read_jsonl([row], "conversations").notes == []
    row["messages"][0]["weight"] = 1
    report = read_jsonl([row], "conversations")
    assert report.notes == ["warning: not used: messages[].weight of user messages (1 values)"]


def test_the_masked_reply_of_a_pair_is_left_out(read_jsonl: Reader) -> None:
    good, bad = assistant("good"), assistant("bad")
    rows = [
        {"prompt": [user("q")], "chosen": [{**good, "weight": n}], "rejected": [bad]}
        for n in (0, 1)
    ]
    report = read_jsonl(rows, "preferences")
    assert report.records == [PreferencePair((user("q"),), "good", "bad")]
    assert report.dropped == {"the reply of a pair is masked": 1}


Q, A = user("q"), assistant("a")
GOOD = {"messages": [Q, A]}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}
THOUGHT = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]
IMAGE = [{"type": "image_url", "image_url": {"url": "x"}}]
LEGACY = [("human", "q"), ("function_call", "{}"), ("observation", "1"), ("gpt", "a")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**GOOD, "tools": [{"name": "f"}]}, "tool definitions"),
        ({"prompt": "q", "completion": "a", "functions": '[{"name": "f"}]'}, "tool definitions"),
        ({"messages": [Q, CALL]}, "tool calls"),
        ({"messages": [Q, {**assistant(""), "function_call": {"name": "f"}}]}, "tool calls"),
        ({"messages": [Q, {"role": "function_call", "content": "{}"}]}, "tool calls"),
        ({"conversations": [{"from": role, "value": text} for role, text in LEGACY]}, "tool calls"),
        ({"messages": [Q, {**A, "reasoning_content": "hm"}]}, "thoughts"),
        ({"prompt": "q", "completion": "a", "reasoning_content": "hm"}, "thoughts"),
        ({"messages": [Q, {"role": "assistant", "content": THOUGHT}]}, "thoughts"),
        ({**GOOD, "images": ["a.png"]}, "images"),
        ({"messages": [user("<image>\nq"), A]}, "images"),
        ({"prompt": "<video> q", "chosen": "a", "rejected": "b"}, "images"),
        ({"messages": [{"role": "user", "content": IMAGE}, A]}, "images"),
        ({"messages": [Q, assistant(""), Q, A]}, "empty turn"),
        ({"messages": [Q, A, {"role": "user", "content": None}, A]}, "empty turn"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_carry_is_left_out_and_counted(
    read_jsonl: Reader, row: dict[str, Any], reason: str
) -> None:
    clean = {key: value for key, value in row.items() if key not in ("tools", "images")}
    kind = "preferences" if "chosen" in row else "conversations"
    good = {
        "messages": GOOD,
        "conversations": {"conversations": [{"from": "human", "value": "q"},
                                            {"from": "gpt", "value": "a"}]},
        "prompt": {**clean, "prompt": "q", "functions": None, "reasoning_content": ""},
    }[next(iter(row))]  # fmt: skip
    report = read_jsonl([row, good], kind)
    assert len(report.records) == 1
    assert [(reason in why, count) for why, count in report.dropped.items()] == [(True, 1)]


def test_a_tools_answer_goes_to_the_template_and_html_stays_text(read_jsonl: Reader) -> None:
    for role in ("tool", "function"):
        turns = [user("How do I use a <video> tag?"), {"role": role, "content": "4"}]
        [record] = read_jsonl([{"messages": [*turns, assistant("a")]}], "conversations").records
        assert [message["role"] for message in record.messages] == ["user", "tool", "assistant"]


def test_other_keys_of_messages_are_named_with_their_counts(read_jsonl: Reader) -> None:
    named = {**user("q"), "name": "Li", "id": None, "annotations": []}
    parts = [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]
    rows = [{"messages": [named, {"role": "assistant", "content": parts}]}] * 3
    report = read_jsonl(rows, "conversations")
    assert report.records == [Conversation((user("q"), assistant("a")))] * 3
    assert report.notes == [
        "not used: messages[].name, messages[].content[].cache_control (3 values)"
    ]


@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_a_struct_of_lists_is_messages(tmp_path: Path, keys: tuple[str, str]) -> None:
    column = "messages" if keys[0] == "role" else "conversations"
    names = ["user", "assistant"] if keys[0] == "role" else ["human", "gpt"]
    path = tmp_path / "a.parquet"
    lists = {
        keys[0]: names * 2,
        keys[1]: [m["content"] for m in FOUR],
        "weight": [None, 0, None, 1],
    }
    pq.write_table(pa.Table.from_pylist([{column: lists}]), path)
    report = read(DataSource(path=str(path)), "conversations")
    assert report.records == [Conversation(FOUR, context=(1,))]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{column: {**lists, keys[1]: ["q"]}}]), encoding="utf-8")
    with pytest.raises(DataError, match=r"lists of .* must have one length, got \[1, 4\]"):
        read(DataSource(path=str(path)), "conversations")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"messages": [user("q"), assistant("a")]},
        {"instruction": "q", "output": "a"},
        {"text": "t"},
    ],
)
@pytest.mark.parametrize("key", ["weight", "train", "loss", "loss_mask"])
@pytest.mark.parametrize(("off", "on"), [(0, 1), (False, True), ("0", "true"), (0.0, 1.0)])
def test_a_record_that_is_masked_is_left_out(
    read_jsonl: Reader, row: dict[str, Any], key: str, off: object, on: object
) -> None:
    report = read_jsonl([{**row, key: value} for value in (off, on, None)], "conversations")
    assert (len(report.records), report.notes) == (2, [])
    assert report.dropped == {f"the record's {key} is 0 or false": 1}


def test_a_masked_pair_is_left_out_and_a_masked_prompt_stays(read_jsonl: Reader) -> None:
    rows = [{"prompt": "q", "chosen": "x", "rejected": "y", "weight": n} for n in (0, 1)]
    assert len(read_jsonl(rows, "preferences").records) == 1
    assert len(read_jsonl(rows, "prompts").records) == 2


def test_a_record_of_a_fraction_of_a_weight_is_refused(read_jsonl: Reader) -> None:
    row = {"prompt": "q", "completion": "a", "weight": 0.5}
    with pytest.raises(DataError, match=r"weight must be 0 or 1 .*rename the column") as caught:
        read_jsonl([row], "conversations")
    report = read_jsonl([row], "conversations", columns={"weight": "kg"})
    assert (len(report.records), len(caught.value.problems)) == (1, 1)


@pytest.mark.parametrize(
    ("asks", "answers"),
    [("User", "Assistant"), ("USER", "bot"), ("Human", "ChatGPT"), ("user", "Model"),
     ("用户", "助手"), ("human", "GPT")],
)  # fmt: skip
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_roles_are_read_in_whatever_case_and_language(
    read_jsonl: Reader, asks: str, answers: str, keys: tuple[str, str]
) -> None:
    said = [("系统", "s"), (asks, "q"), (answers, "a")]
    chat = [dict(zip(keys, turn, strict=True)) for turn in said]
    for messages in (chat, json.dumps(chat)):
        [record] = read_jsonl([{"messages": messages}], "conversations").records
        assert record.messages == ({"role": "system", "content": "s"}, Q, A)


def test_a_role_that_may_be_either_is_refused_with_a_remedy(read_jsonl: Reader) -> None:
    chat = [{"role": "teacher", "content": "q"}, {"role": "student", "content": "a"}]
    with pytest.raises(DataError, match=r"got str 'teacher'; write `user`, `assistant`"):
        read_jsonl([{"messages": chat}], "conversations")


@pytest.mark.parametrize(
    "question",
    [
        "<|image_pad|>q",
        "<|vision_start|><|image_pad|><|vision_end|>\nq",
        "q\n<image>",
        "<img>q",
        "q <img>",
        "Picture 1: <img>a/b.jpg</img>\nq",
        "<image_1> q",
        "<|image_1|>\nq",
        "<Image>\nq",
        "q\n<image>\nr",
    ],
)
def test_a_placeholder_of_an_image_leaves_the_record_out(read_jsonl: Reader, question: str) -> None:
    report = read_jsonl([GOOD, {"messages": [user(question), A]}], "conversations")
    assert report.dropped == {"images, video and audio are not supported": 1}


@pytest.mark.parametrize(
    "question",
    ["Where does <image> go in SVG?", "What is the <img> tag for?", "Is <|image_pad|> a token?"],
)
def test_a_question_about_a_placeholder_stays(read_jsonl: Reader, question: str) -> None:
    report = read_jsonl([{"messages": [user(question), A]}], "conversations")
    assert (len(report.records), report.dropped) == (1, {})
