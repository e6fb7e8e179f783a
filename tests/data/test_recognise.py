"""Formats are those of the whole file, and what only looks like one is refused with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import Conversation, PlainText, PreferencePair, assistant, user
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

Reader = Callable[..., ReadReport]
CHAT = Conversation((user("q"), assistant("a")))
PAIR = PreferencePair((user("q"),), "good", "bad")
LAYOUTS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [user("q"), assistant("a")]},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "easyds-sft": {"input": "q", "output": "a"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("label", [True, False]),
        ("label", [0, 1]),
        ("label", [None, "True"]),
        ("label", ["false", ""]),
        ("Label ", [1.0, 0.0]),
        ("label", [1, -1]),
        ("label", ["good", "bad"]),
        ("kto_tag", [True, None]),
    ],
)
def test_kto_labels_are_refused_beside_any_format(
    read_jsonl: Reader, layout: str, name: str, labels: list[object]
) -> None:
    rows = [{**LAYOUTS[layout], name: label} for label in labels]
    for kind in ("conversations", "preferences"):
        with pytest.raises(DataError, match="this is KTO data"):
            read_jsonl(rows, kind)
    report = read_jsonl(rows, "conversations", format=layout)
    assert report.records == [CHAT, CHAT]
    assert "all are trained alike, because `format` is named" in report.notes[0]


def test_kto_is_told_before_a_reply_of_another_name(read_jsonl: Reader) -> None:
    with pytest.raises(DataError, match="this is KTO data"):
        read_jsonl([{"prompt": "q", "response": "a", "label": True}], "conversations")


@pytest.mark.parametrize("labels", [["math", "code"], [0, 3], ["a", True], [[1], [0]]])
def test_another_label_is_a_column_that_is_not_used(
    read_jsonl: Reader, labels: list[object]
) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in labels]
    report = read_jsonl(rows, "conversations")
    assert (report.records, report.notes) == ([CHAT, CHAT], ["warning: not used: label (2 values)"])


def test_labels_of_texts_of_pairs_and_of_prompts_are_noted(read_jsonl: Reader) -> None:
    pair = {"prompt": "q", "chosen": "good", "rejected": "bad", "label": 1}
    for row, kind in (({"text": "t", "label": 1}, "text"), (pair, "preferences"),
                      ({"prompt": "q", "completion": "a", "label": 0}, "prompts")):  # fmt: skip
        [note] = read_jsonl([row], kind).notes
        assert note == ("warning: " * (kind == "preferences")) + "not used: label (1 values)"


def test_the_format_is_that_of_the_columns_with_values(read_jsonl: Reader) -> None:
    empty = {"messages": None, "chosen": "", "rejected": None, "text": []}
    rows = [{"prompt": "q", "completion": "a", **empty}]
    assert read_jsonl(rows, "conversations").records == [CHAT]
    rows = [{"prompt": "q", "chosen": None, "rejected": None},
            {"prompt": "q", "chosen": "good", "rejected": "bad"}]  # fmt: skip
    report = read_jsonl(rows, "preferences")
    assert (report.records, report.dropped) == ([PAIR], {"empty reply": 1})


def test_a_file_of_two_formats_names_the_rows_that_do_not_fit(read_jsonl: Reader) -> None:
    rows = [LAYOUTS["messages"], LAYOUTS["prompt-completion"], LAYOUTS["messages"]]
    with pytest.raises(DataError, match=r"rows.jsonl:2: needs the field 'messages'") as caught:
        read_jsonl(rows, "conversations")
    assert len(caught.value.problems) == 1


def test_a_record_of_another_kind_is_an_error_with_its_line(read_jsonl: Reader) -> None:
    rows = [{"instruction": "q", "output": output} for output in (["good", "bad"], "a")]
    with pytest.raises(DataError, match=r"^rows.jsonl:2: holds conversations where preferences"):
        read_jsonl(rows, "preferences")


def test_one_message_a_row_is_refused_and_may_be_named_text(read_jsonl: Reader) -> None:
    rows = [{"message_id": "1", "parent_id": None, "role": "prompter", "text": "q"},
            {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "a"}]  # fmt: skip
    with pytest.raises(DataError, match=r"one message a row .*list `messages`.*`format: text`"):
        read_jsonl(rows, "conversations")
    report = read_jsonl(rows, "conversations", format="text")
    assert report.records == [PlainText("q"), PlainText("a")]
    assert report.notes == ["not used: message_id, role (2 values), parent_id (1 values)"]
    with pytest.raises(DataError, match="one message a row"):
        read_jsonl([{"id": 1, **user("q")}, {"id": 1, **assistant("a")}], "conversations")


@pytest.mark.parametrize("key", ["data", "train", "rows"])
def test_records_inside_one_object_are_refused_with_the_way_out(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.json"
    rows = [LAYOUTS["prompt-completion"]] * 2
    path.write_text(json.dumps({"version": "1", key: rows}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"json.load\(old\)\['{key}'\]"):
        read(DataSource(path=str(path)), "conversations")
    path.write_text(json.dumps(json.loads(path.read_text())[key]), encoding="utf-8")
    assert len(read(DataSource(path=str(path)), "conversations").records) == 2


@pytest.mark.parametrize("wrap", [lambda values: {str(n): v for n, v in enumerate(values)}, list])
def test_columns_inside_one_object_are_refused_with_the_way_out(
    tmp_path: Path, wrap: Callable[[list[str]], object]
) -> None:
    path = tmp_path / "a.json"
    columns = {"prompt": wrap(["q", "q2"]), "completion": wrap(["a", "a2"])}
    path.write_text(json.dumps(columns), encoding="utf-8")
    with pytest.raises(DataError, match="orient='records', lines=True"):
        read(DataSource(path=str(path)), "conversations")


def test_unused_columns_are_named_once_for_all_sources(tmp_path: Path) -> None:
    for name in "ab":
        row = {"prompt": "q", "completion": "a", "id": name, "score": 0, "empty": " "}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    sources = [DataSource(path=str(tmp_path / f"{name}.jsonl")) for name in "ab"]
    assert read(sources, "conversations").notes == ["not used: id, score (1 values)"]


def test_of_many_unused_columns_the_first_are_named(read_jsonl: Reader) -> None:
    row = {"text": "t", **{f"c{n}": n for n in range(1, 31)}}
    [note] = read_jsonl([row], "text").notes
    assert note.endswith("c20 (1 values) and 10 more columns")
