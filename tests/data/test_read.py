"""`read`, its formats and their messages: every layout gives the record that it means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyds_tune.data.read import MAX_PROBLEMS, ReadReport, read
from easyds_tune.data.records import (
    Conversation,
    Kind,
    PlainText,
    PreferencePair,
    Prompt,
    assistant,
    user,
)
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

Reader = Callable[..., ReadReport]

SYSTEM = {"role": "system", "content": "s"}
PAIR = PreferencePair((user("q"),), "good", "bad")
CHAT = Conversation((user("q"), assistant("a")))
LONG_PAIR = PreferencePair((user("q"), assistant("a"), user("q2")), "good", "bad")


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        ({"messages": [user("q"), assistant("a")]}, "conversations", CHAT),
        ({"prompt": "q", "completion": "a"}, "conversations", CHAT),
        ({"prompt": [user("q")], "completion": [assistant("a")]}, "conversations", CHAT),
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, "preferences", PAIR),
        (
            {
                "prompt": [user("q")],
                "chosen": [assistant("good")],
                "rejected": [assistant("bad")],
            },
            "preferences",
            PAIR,
        ),
        (
            {
                "chosen": [user("q"), assistant("good")],
                "rejected": [user("q"), assistant("bad")],
            },
            "preferences",
            PAIR,
        ),
        (
            {
                "prompt": "q",
                "chosen": [user("q"), assistant("good")],
                "rejected": [user("q"), assistant("bad")],
            },
            "preferences",
            PAIR,
        ),
        ({"text": "once"}, "text", PlainText("once")),
        ({"text": "once"}, "conversations", PlainText("once")),
        ({"prompt": "q"}, "prompts", Prompt((user("q"),))),
        ({"prompt": [SYSTEM, user("q")]}, "prompts", Prompt((SYSTEM, user("q")))),
        ({"instruction": "q", "input": "", "output": "a"}, "conversations", CHAT),
        (
            {"instruction": "q", "input": "x", "output": "a"},
            "conversations",
            Conversation((user("q\nx"), assistant("a"))),
        ),
        (
            {"instruction": "q2", "history": [["q", "a"]], "output": ["good", "so-so", "bad"]},
            "preferences",
            LONG_PAIR,
        ),
        ({"instruction": "q", "chosen": "good", "rejected": "bad"}, "preferences", PAIR),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            "conversations",
            Conversation((SYSTEM, user("q"), assistant("a"))),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            "preferences",
            PAIR,
        ),
        (
            {
                "chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant: good",
                "rejected": "\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant: bad",
            },
            "preferences",
            LONG_PAIR,
        ),
        (
            {"prompt": "q", "pos_resp": "good", "neg_resp": "bad", "pos_type": "x"},
            "preferences",
            PAIR,
        ),
        (
            {
                "input": json.dumps([SYSTEM, user("q")]),
                "output": json.dumps(assistant("a")),
            },
            "conversations",
            Conversation((SYSTEM, user("q"), assistant("a"))),
        ),
        (
            {"chosen": "用户: q\n助手: good", "rejected": "用户: q\n助手: bad"},
            "preferences",
            PAIR,
        ),
        (
            {
                "chosen": "用户：q\n助手：a\n用户：q2\n助手：good",
                "rejected": "用户：q\n助手：a\n用户：q2\n助手：bad",
            },
            "preferences",
            LONG_PAIR,
        ),
        ({"input": "q"}, "prompts", Prompt((user("q"),))),
        ({"input": "[1, 2] 排序"}, "prompts", Prompt((user("[1, 2] 排序"),))),
        ({"input": json.dumps([user("q")])}, "prompts", Prompt((user("q"),))),
        ({"prompt": "q", "completion": "a"}, "prompts", Prompt((user("q"),))),
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, "prompts", Prompt((user("q"),))),
    ],
)
def test_each_format_is_recognised_and_read(
    read_jsonl: Reader, row: dict[str, Any], kind: Kind, expected: object
) -> None:
    assert read_jsonl([row], kind).records == [expected]


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"prompt": "q", "completion": " \n"}, "conversations", "empty reply"),
        ({"prompt": " ", "completion": "a"}, "conversations", "empty prompt"),
        ({"messages": [user("q")]}, "conversations", "no reply at the end"),
        (
            {"prompt": "q", "chosen": "x ", "rejected": "x"},
            "preferences",
            "chosen equals rejected",
        ),
        (
            {
                "chosen": "\n\nHuman: q\n\nAssistant: x",
                "rejected": "\n\nHuman: other\n\nAssistant: y",
            },
            "preferences",
            "chosen and rejected answer different prompts",
        ),
        (
            {
                "chosen": "\n\nHuman: q\n\nAssistant:",
                "rejected": "\n\nHuman: q\n\nAssistant: y",
            },
            "preferences",
            "empty reply",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ],
                "tools": '[{"name": "f"}]',
            },
            "conversations",
            "tool definitions are not supported",
        ),
    ],
)
def test_dirty_records_are_dropped_and_counted_by_reason(
    read_jsonl: Reader, row: dict[str, Any], kind: Kind, reason: str
) -> None:
    with pytest.raises(DataError, match=f"all 2 records were dropped .2 × {reason}"):
        read_jsonl([row, row], kind)


def test_clean_records_stay_when_dirty_ones_are_dropped(read_jsonl: Reader) -> None:
    pairs = [("good", "bad"), ("x", "x"), ("", "bad"), ("y", " y")]
    rows = [{"prompt": "q", "chosen": good, "rejected": bad} for good, bad in pairs]
    report = read_jsonl(rows, "preferences")
    assert report.records == [PAIR]
    assert report.dropped == {"chosen equals rejected": 2, "empty reply": 1}


def test_a_record_with_an_empty_reply_still_gives_its_prompt(read_jsonl: Reader) -> None:
    report = read_jsonl([{"prompt": "q", "completion": ""}], "prompts")
    assert report.records == [Prompt((user("q"),))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q"}, "rows.jsonl:2: needs the field 'completion', has 'prompt'"),
        ({"prompt": "q", "completion": 3}, "rows.jsonl:2: completion must be text"),
        ({"prompt": None, "completion": "a"}, "got NoneType None"),
        ({"prompt": ["q"], "completion": "a"}, r"prompt\[0\] must be a message, got str 'q'"),
        (
            {"prompt": [{"role": "x", "content": ""}], "completion": "a"},
            r"prompt\[0\].role must be one of system,",
        ),
        ({"prompt": '[{"role": "user"', "completion": "a"}, "opens like messages in JSON"),
        ({"prompt": "q", "completion": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_a_record_of_another_shape_is_an_error_with_its_line(
    read_jsonl: Reader, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_jsonl([{"prompt": "q", "completion": "a"}, row], "conversations")


def test_all_problems_of_all_sources_are_reported_and_long_lists_are_cut(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text('{"prompt": "q", "completion": 1}\n' * 30, encoding="utf-8")
    second.write_text("{", encoding="utf-8")
    sources = [DataSource(path=str(first)), DataSource(path=str(second))]
    with pytest.raises(DataError) as caught:
        read(sources, "conversations")
    problems = caught.value.problems
    assert len(problems) == MAX_PROBLEMS + 2
    assert problems[MAX_PROBLEMS].endswith("a.jsonl: and 10 more problems of this kind")
    assert problems[-1].startswith("b.jsonl:1: broken JSON line")


def test_a_source_of_another_kind_is_one_error_with_a_remedy(read_jsonl: Reader) -> None:
    with pytest.raises(DataError) as caught:
        read_jsonl([{"prompt": "q", "completion": "a"}] * 5, "preferences")
    assert len(caught.value.problems) == 1
    assert "holds conversations where preferences are asked for" in str(caught.value)


def test_kto_rows_and_unknown_columns_are_refused_with_a_remedy(read_jsonl: Reader) -> None:
    kto = {"messages": [user("q"), assistant("a")], "label": False}
    with pytest.raises(DataError, match="KTO"):
        read_jsonl([kto], "preferences")
    assert read_jsonl([kto], "conversations", format="messages").records == [CHAT]
    with pytest.raises(DataError, match="'q', 'a' fit no known format; name them with `columns`"):
        read_jsonl([{"q": "1", "a": "2"}], "conversations")


def test_limit_counts_usable_records(read_jsonl: Reader) -> None:
    rows = [{"prompt": "q", "completion": reply} for reply in ("", "a", "b", "c")]
    report = read_jsonl(rows, "conversations", limit=2)
    assert [record.messages[-1]["content"] for record in report.records] == ["a", "b"]


@pytest.mark.parametrize("open_with", ['{"messages": ', '{"prompt": "q", "completion": '])
def test_a_value_of_any_depth_is_told_in_a_few_words(tmp_path: Path, open_with: str) -> None:
    path = tmp_path / "deep.jsonl"
    for depth in (2, 50, 900, 990, 5000):
        path.write_text(f"{open_with}{'[' * depth}{']' * depth}}}", encoding="utf-8")
        with pytest.raises(DataError) as caught:
            read(DataSource(path=str(path)), "conversations")
        assert all(len(problem) < 300 for problem in caught.value.problems)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), inner, max_size=2)
    ),
    max_leaves=6,
)
_PAIR_FIELDS = ["prompt", "completion", "chosen", "rejected", "pos_resp", "neg_resp", "label"]
_CHAT_FIELDS = ["messages", "conversations", "input", "output", "instruction", "history", "text"]
_FIELDS = st.sampled_from([*_PAIR_FIELDS, *_CHAT_FIELDS, "system", "tools"])


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.dictionaries(_FIELDS, _VALUES, max_size=4), min_size=1, max_size=3),
    kind=st.sampled_from(["conversations", "preferences", "prompts", "text"]),
)
def test_any_rows_give_records_or_a_data_error(
    read_jsonl: Reader, rows: list[dict[str, Any]], kind: Kind
) -> None:
    try:
        report = read_jsonl(rows, kind)
    except DataError:
        return
    assert len(report.records) + report.dropped.total() == len(rows)
