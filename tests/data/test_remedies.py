"""What a refusal tells to write is written, and the file is read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import (
    Conversation,
    Kind,
    PreferencePair,
    Prompt,
    assistant,
    user,
)
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

Reader = Callable[..., ReadReport]
CHAT = Conversation((user("q"), assistant("a")))
PAIR = PreferencePair((user("q"),), "good", "bad")


def remedy_in(message: str) -> dict[str, Any]:
    """The fields of a source that a message tells to write."""
    return {
        key: value
        for piece in re.findall(r"`((?:columns|format|delimiter|split): [^`]+)`", message)
        for key, value in yaml.safe_load(piece).items()
    }


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        ({"prompt": "q", "response": "a", "helpfulness": 4}, "conversations", CHAT),
        ({"prompt": "q", "Response": "a"}, "conversations", CHAT),
        ({"prompt": "q", " completion": "a"}, "conversations", CHAT),
        ({"Prompt ": "q", "Completion": "a"}, "conversations", CHAT),
        ({"Question": "q", "Complex_CoT": "c", "Response": "a"}, "conversations", CHAT),
        ({"query": "q", "answer": "a", "completion": ""}, "conversations", CHAT),
        ({"问题": "q", "回答": "a"}, "conversations", CHAT),
        ({"instruction": "q", "response": "a"}, "conversations", CHAT),
        ({"instruction": "q", "context": "x", "response": "a"}, "conversations",
         Conversation((user("q\nx"), assistant("a")))),
        ({"conversation": [user("q"), assistant("a")], "model": "m"}, "conversations", CHAT),
        ({"input": "q", "target": "a"}, "conversations", CHAT),
        ({"no": "q", 'a "b"': "a", "question": "q", "my answer": "a"}, "conversations", CHAT),
        ({"prompt": "q", "response": "a", "chosen": "a", "rejected": "b"}, "conversations", CHAT),
        ({"messages": [user("q"), assistant("a")], "prompt": "q", "chosen": "x", "rejected": "y"},
         "conversations", CHAT),
        ({"question": "q", "response_chosen": "good", "response_rejected": "bad"}, "preferences",
         PAIR),
        ({"Prompt": "q", "Chosen": "good", "Rejected": "bad"}, "preferences", PAIR),
        ({"question": "q", "chosen": "good", "rejected": "bad"}, "preferences", PAIR),
        ({"prompt": "q", "responses": ["good", "so-so", "bad"], "scores": [3, 2, 1]},
         "preferences", PAIR),
        ({"chosen_messages": [user("q"), assistant("good")],
          "rejected_messages": [user("q"), assistant("bad")]}, "preferences", PAIR),
        ({"conversations": [{"from": "human", "value": "q"}],
          "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "x"}},
         "conversations", CHAT),
        ({"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("x")]},
         "conversations", CHAT),
        ({"question": "q", "rejected_response": "b", "chosen_response": "a"}, "conversations",
         CHAT),
        ({"question": "q", "answer_id": "x7", "reply": "a"}, "conversations", CHAT),
        ({"question": "q", "topic": "x"}, "prompts", Prompt((user("q"),))),
        ({"instruction": "q"}, "prompts", Prompt((user("q"),))),
    ],
)  # fmt: skip
def test_the_remedy_for_columns_of_other_names_works(
    read_jsonl: Reader, row: dict[str, Any], kind: Kind, expected: object
) -> None:
    with pytest.raises(DataError) as caught:
        read_jsonl([row], kind)
    assert read_jsonl([row], kind, **remedy_in(str(caught.value))).records == [expected]


def test_a_remedy_keeps_the_renames_that_are_written(read_jsonl: Reader) -> None:
    row, written = {"q": "q", "said": "a", "answer": ""}, {"q": "prompt"}
    with pytest.raises(DataError) as caught:
        read_jsonl([{**row, "response": "a"}], "conversations", columns=written)
    found = remedy_in(str(caught.value))
    assert found == {"columns": {"q": "prompt", "response": "completion"}}
    report = read_jsonl([{**row, "response": "a"}], "conversations", **found)
    assert report.records == [CHAT]


def test_no_remedy_is_made_up(read_jsonl: Reader) -> None:
    with pytest.raises(DataError, match=r"\{question: prompt, good: chosen, bad: rejected\}"):
        read_jsonl([{"prompt": "q", "completion": "a"}], "preferences")


def test_a_prompt_without_any_reply_names_the_columns(read_jsonl: Reader) -> None:
    with pytest.raises(DataError, match=r"the columns are 'prompt', 'lang' \('note' without a val"):
        read_jsonl([{"prompt": "q", "lang": "en", "note": ""}], "conversations")


def test_ranked_replies_are_for_pairs_or_one_is_written_alone(read_jsonl: Reader) -> None:
    row: dict[str, Any] = {"instruction": "q", "output": ["good", "bad"]}
    with pytest.raises(DataError, match="write the best one alone, as text"):
        read_jsonl([{"prompt": "q", "responses": ["good", "bad"]}], "conversations")
    with pytest.raises(DataError, match=r"the best one alone.* or train rm or dpo on pairs"):
        read_jsonl([row], "conversations")
    assert read_jsonl([row], "preferences").records == [PAIR]
    [record] = read_jsonl([{**row, "output": "good"}], "conversations").records
    assert record.messages[-1] == assistant("good")


@pytest.mark.parametrize(
    "replies",
    [
        {"response_a": "x", "response_b": "y", "winner": "model_a"},
        {"response_0": "x", "response_1": "y", "better_response_id": "1"},
        {"response1": "x", "response2": "y", "overall_preference": -2},
        {"answerA": "x", "answerB": "y"},
        {"response_a": "x", "response_b": "y", "label": 1},
        {"回答1": "x", "回答2": "y"},
        {"chosen": "x", "original_response": "y"},
        {"original_response": "x", "revised_response": "y"},
        {"conversation_a": [user("q"), assistant("x")],
         "conversation_b": [user("q"), assistant("y")], "winner": "tie"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("question", ["prompt", "question"])
@pytest.mark.parametrize("kind", ["conversations", "preferences"])
def test_none_of_several_replies_is_told_to_be_the_one_to_train(
    read_jsonl: Reader, replies: dict[str, Any], question: str, kind: Kind
) -> None:
    with pytest.raises(DataError, match=r"comparison data: .*better reply to `chosen`") as caught:
        read_jsonl([{question: "q", **replies}] * 2, kind)
    assert not remedy_in(str(caught.value))


def test_the_remedy_for_lists_of_replies_is_one_that_works(read_jsonl: Reader) -> None:
    row: dict[str, Any] = {"prompt": [user("q")], "responses": ["good", "bad"]}
    with pytest.raises(DataError, match="the best one as `chosen`"):
        read_jsonl([row], "preferences")
    row = {"question": "q", "output": "x", "responses": ["good", "bad"]}
    with pytest.raises(DataError) as caught:
        read_jsonl([row], "preferences")
    assert read_jsonl([row], "preferences", **remedy_in(str(caught.value))).records == [PAIR]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_another_delimiter_is_told_and_works(tmp_path: Path, ending: str, mark: str) -> None:
    path = tmp_path / f"a.{ending}"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=mark)
        writer.writerows([["prompt", "completion"], ["q, one; two | three\tfour", "a, b, c"]])
    found: dict[str, Any] = {}
    if mark != {"csv": ",", "tsv": "\t"}[ending]:
        with pytest.raises(DataError, match="the header is one column") as caught:
            read(DataSource(path=str(path)), "conversations")
        found = remedy_in(str(caught.value))
    [record] = read(DataSource(path=str(path), **found), "conversations").records
    assert isinstance(record, Conversation)
    assert record.messages[0]["content"] == "q, one; two | three\tfour"


def test_a_header_of_one_name_may_hold_a_mark_where_the_delimiter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text;note\nhello\n", encoding="utf-8")
    source = DataSource(path=str(path), delimiter=",", columns={"text;note": "text"})
    assert len(read(source, "text").records) == 1


def test_a_delimiter_is_for_tables_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "t"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"`delimiter` belongs to .csv and .tsv files; remove it"):
        read(DataSource(path=str(path), delimiter=";"), "text")


def test_a_mistyped_file_is_told_its_name(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "t"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"no such file .*did you mean train.jsonl\?"):
        read(DataSource(path=str(tmp_path / "trian.jsonl")), "text")
