"""A good/bad label beside one reply is KTO data, however the label is spelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyds_tune.data.read import ReadReport
from easyds_tune.data.records import assistant, user
from easyds_tune.errors import DataError

Reader = Callable[..., ReadReport]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("is_good", [True, False]),
        ("isGood", [1, 0]),
        ("good", ["true", "false"]),
        ("chosen?", [True, False]),
        ("accepted", [1, 0]),
        ("Is Chosen", ["yes", "no"]),
        ("kto-label", [0, 1]),
        ("preference", ["chosen", "rejected"]),
        ("feedback", ["positive", "negative", "neutral"]),
        ("user_feedback", ["like", "dislike"]),
        ("rating", ["good", "bad"]),
        ("score", [1, 0]),
        ("score", [1, 0, -1]),
        ("thumbs", ["up", "down"]),
        ("thumbs_up", [True, False]),
        ("vote", ["thumbs-up", "Thumbs-Down"]),
        ("like", [0, 1]),
        ("labels", ["correct", "incorrect"]),
        ("label", ["accepted", "rejected"]),
        ("tag", ["Good", "Bad", "Neutral"]),
        ("标签", ["好", "坏"]),
        ("评价", ["好", "坏"]),
    ],
)
@pytest.mark.parametrize("reply", ["completion", "answer"])
def test_kto_is_refused_under_any_name_and_with_any_words(
    read_jsonl: Reader, name: str, labels: list[object], reply: str
) -> None:
    question = "prompt" if reply == "completion" else "question"
    rows = [{question: "q", reply: "a", name: label} for label in labels]
    for kind in ("conversations", "preferences"):
        with pytest.raises(DataError, match="this is KTO data"):
            read_jsonl(rows, kind)


def test_a_label_on_the_replies_of_messages_is_kto_too(read_jsonl: Reader) -> None:
    rows = [{"messages": [user("q"), {**assistant("a"), "label": good}]} for good in (True, False)]
    with pytest.raises(DataError, match="this is KTO data"):
        read_jsonl(rows, "conversations")


@pytest.mark.parametrize(
    "reply",
    [
        lambda label: {"prompt": "q", "completion": label},
        lambda label: {"instruction": "q", "input": "x", "output": label.title() + "."},
        lambda label: {"messages": [user("q"), assistant(label)]},
    ],
)
def test_a_label_that_is_the_reply_is_no_verdict(
    read_jsonl: Reader, reply: Callable[[str], dict[str, Any]]
) -> None:
    rows = [{**reply(label), "label": label} for label in ("positive", "negative")]
    report = read_jsonl(rows, "conversations")
    assert (len(report.records), "label" in report.notes[0]) == (2, True)


@pytest.mark.parametrize(
    ("name", "values"), [("score", [0, 0]), ("like", [1]), ("rating", [1, 5]), ("lang", [0, 1])]
)
def test_other_columns_are_no_verdicts(read_jsonl: Reader, name: str, values: list[object]) -> None:
    rows = [{"prompt": "q", "completion": "a", name: value} for value in values]
    assert len(read_jsonl(rows, "conversations").records) == len(values)
