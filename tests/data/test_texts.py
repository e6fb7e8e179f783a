"""Which texts are messages, and which JSON is the reply as it stands."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import (
    Conversation,
    Kind,
    Message,
    PreferencePair,
    Prompt,
    assistant,
    user,
)
from easyds_tune.data.texts import parse_messages
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

Reader = Callable[..., ReadReport]
CHAT = [user("it's 1"), assistant('a "word"')]
PAIR = PreferencePair((user("q"),), "good", "bad")
NUMPY = """[{'content': "it's 1", 'role': 'user'}\n {'content': 'a "word"', 'role': 'assistant'}]"""


@pytest.fixture
def read_csv(tmp_path: Path) -> Reader:
    """Write rows as CSV, whatever is no text as Python writes it, and read them."""

    def _read(rows: list[dict[str, Any]], kind: Kind, **source: Any) -> ReadReport:
        path = tmp_path / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return read(DataSource(path=str(path), **source), kind)

    return _read


@pytest.mark.parametrize("text", [json.dumps(CHAT), repr(CHAT), NUMPY, f" {CHAT!r}\n"])
def test_json_python_and_numpy_lists_are_parsed(text: str) -> None:
    assert parse_messages(text) == CHAT


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[1]", "q", '{"from": "Berlin", "to": "Paris"}', '[{"role": "admin"}]',
     "[{'role': 'user', 'content': nan}]", "[{'role': 'user'", "__import__('os').system('false')",
     "[{'role': 'user', 'content': open('x')}]", "[{'" * 3000],
)  # fmt: skip
def test_any_other_text_is_no_messages(text: str) -> None:
    assert parse_messages(text) is None


@pytest.mark.parametrize(
    "reply",
    ['{"from": "Berlin", "to": "Paris"}', '{"value": 1}', '{"role": "admin", "content": "x"}',
     '{"role": "assistant", "content": "x"}', '{"content": "x"', json.dumps(CHAT),
     json.dumps([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])],
)  # fmt: skip
@pytest.mark.parametrize("prompt", ["write it as JSON", [user("write it as JSON")]])
def test_a_reply_that_is_json_stays_the_reply(
    read_jsonl: Reader, reply: str, prompt: str | list[Message]
) -> None:
    asked = (user("write it as JSON"),)
    rows = [{"prompt": prompt, "completion": reply}] * 2
    chat = Conversation((*asked, assistant(reply)))
    assert read_jsonl(rows, "conversations").records == [chat] * 2
    pairs = [{"prompt": prompt, "chosen": reply, "rejected": f"{reply} "[1:]}] * 2
    records = read_jsonl(pairs, "preferences").records
    assert records == [PreferencePair(asked, reply, f"{reply} "[1:])] * 2
    rows = [{"instruction": "write", "input": reply, "output": reply}]
    [record] = read_jsonl(rows, "conversations").records
    assert record == Conversation((user(f"write\n{reply}"), assistant(reply)))


def test_a_chat_as_the_reply_is_noted(read_jsonl: Reader) -> None:
    report = read_jsonl([{"prompt": "q", "completion": json.dumps(CHAT)}], "conversations")
    assert report.notes == [
        "completion: 1 texts are messages in JSON or Python and are read as text"
    ]


@pytest.mark.parametrize("write", [repr, json.dumps])
def test_whole_dialogues_beside_their_prompt_are_read_from_csv(
    read_csv: Reader, write: Callable[[object], str]
) -> None:
    sides = {"chosen": assistant("good"), "rejected": assistant("bad")}
    wholes = {name: write([user("q"), side]) for name, side in sides.items()}
    alone = {name: write([side]) for name, side in sides.items()}
    for row in (
        {"prompt": "q", **wholes},
        {"prompt": write([user("q")]), **wholes},
        {"prompt": write([user("q")]), **alone},
        {"prompt": "q", **alone},
        wholes,
    ):
        report = read_csv([row] * 2, "preferences")
        assert (report.records, report.notes) == ([PAIR] * 2, [])


def test_lists_in_the_prompt_messages_and_history_are_read_from_csv(read_csv: Reader) -> None:
    row: dict[str, Any] = {"prompt": [user("q")], "completion": "a"}
    expected = [Conversation((user("q"), assistant("a")))]
    assert read_csv([row], "conversations").records == expected
    chat = {"messages": [user("q"), {**assistant("x"), "weight": 0}, user("q"), assistant("a")]}
    [record] = read_csv([chat], "conversations").records
    assert record.context == (1,)
    row = {"instruction": "q2", "output": "a2", "history": [["q", "a"]]}
    [record] = read_csv([row], "conversations").records
    assert [message["content"] for message in record.messages] == ["q", "a", "q2", "a2"]


def test_a_column_of_prompts_that_is_partly_messages_is_refused(read_jsonl: Reader) -> None:
    mixed = [{"prompt": text, "completion": "a"} for text in (json.dumps([user("q")]), "q")]
    with pytest.raises(DataError, match=r"rows.jsonl:2: prompt is no list of messages, as 1 of"):
        read_jsonl(mixed, "conversations")
    broken = [{"prompt": text, "completion": "a"} for text in ("q", "[{'role': 'user', 'con")]
    with pytest.raises(DataError, match=r"rows.jsonl:2: prompt opens like messages in JSON or Pyt"):
        read_jsonl(broken, "conversations")
    for rows in (mixed, broken):
        report = read_jsonl(rows, "conversations", format="prompt-completion")
        texts = {record.messages[0]["content"] for record in report.records}
        assert texts == {row["prompt"] for row in rows}
        assert report.notes == ["prompt: 1 texts look like messages and are read as text"]


def test_a_broken_dialogue_among_whole_ones_is_refused(read_jsonl: Reader) -> None:
    side = json.dumps([user("q"), assistant("a")])
    rows = [{"prompt": "q", "chosen": side, "rejected": text} for text in (side, side[:-9])]
    with pytest.raises(DataError, match=r"rows.jsonl:2: rejected is no list of messages that"):
        read_jsonl(rows, "preferences")
    with pytest.raises(DataError, match="chosen opens like messages"):
        read_jsonl([{"prompt": "q", "chosen": side[:-9], "rejected": side[:-8]}], "preferences")


def test_a_text_in_a_column_of_messages_is_an_error(read_jsonl: Reader) -> None:
    with pytest.raises(DataError, match=r"messages must be a list of messages, got str 'hello'"):
        read_jsonl([{"messages": "hello"}], "conversations")


def test_marked_turns_in_a_prompt_are_turns_and_counted(read_jsonl: Reader) -> None:
    row = {
        "prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant:",
        "chosen": " good",
        "rejected": " bad",
    }
    report = read_jsonl([row], "preferences")
    asked = (user("q"), assistant("a"), user("q2"))
    assert report.records == [PreferencePair(asked, "good", "bad")]
    assert report.notes == [
        "prompt: 1 texts with `Human:` and `Assistant:` (or `用户:` and `助手:`) read as turns"
    ]
    row = {"prompt": "用户：q\n助手：a\n用户：q2\n助手：", "completion": "good"}
    assert read_jsonl([row], "conversations").records == [Conversation((*asked, assistant("good")))]
    assert read_jsonl([{"prompt": row["prompt"]}], "prompts").records == [Prompt(asked)]


def test_sides_that_repeat_a_marked_prompt_are_parted_from_it(read_jsonl: Reader) -> None:
    sides = {n: f"\n\nHuman: q\n\nAssistant: {n}" for n in ("chosen", "rejected")}
    for prompt in ("q", "\n\nHuman: q\n\nAssistant:"):
        [pair] = read_jsonl([{"prompt": prompt, **sides}], "preferences").records
        assert pair == PreferencePair((user("q"),), "chosen", "rejected")


@pytest.mark.parametrize(
    ("prompt", "noted"),
    [
        ("What does Human: mean?", False),
        ("Translate\nHuman: hello", False),
        ("Human: hello", True),
        ("### Instruction:\nq\n\n### Response:", True),
        ("USER: q\nASSISTANT:", True),
    ],
)
def test_marks_that_are_not_parsed_stay_text_and_are_noted_where_they_look_like_turns(
    read_jsonl: Reader, prompt: str, noted: bool
) -> None:
    report = read_jsonl([{"prompt": prompt, "completion": "a"}], "conversations")
    assert report.records == [Conversation((user(prompt), assistant("a")))]
    note = "prompt: 1 texts with marked turns (`Human:`) are read as one text"
    assert report.notes == [note] * noted


def test_a_named_format_leaves_marks_in_the_text(read_jsonl: Reader) -> None:
    text = "\n\nHuman: q\n\nAssistant:"
    row = {"prompt": text, "completion": " a"}
    report = read_jsonl([row], "conversations", format="prompt-completion")
    assert report.records == [Conversation((user(text), assistant(" a")))]
    assert "are read as one text" in report.notes[0]
