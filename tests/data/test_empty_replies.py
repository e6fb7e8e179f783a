"""A reply that is null is an empty reply, left out and counted, in every kind of file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyds_tune.data.read import read
from easyds_tune.data.records import Kind, assistant, user
from easyds_tune.spec.data import DataSource

HUMAN = {"from": "human", "value": "q"}
SIDES = {name: [user("q"), assistant(name)] for name in ("chosen", "rejected")}
CHATS: Kind = "conversations"
PAIRS: Kind = "preferences"
CASES: list[tuple[Kind, dict[str, Any], str]] = [
    (CHATS, {"prompt": "q", "completion": "a"}, "completion"),
    (CHATS, {"prompt": "\n\nHuman: q\n\nAssistant:", "completion": "a"}, "completion"),
    (CHATS, {"instruction": "q", "input": "x", "output": "a"}, "output"),
    (CHATS, {"input": "q", "output": "a"}, "output"),
    (PAIRS, {"prompt": "q", "chosen": "x", "rejected": "y"}, "rejected"),
    (PAIRS, {"prompt": "q", "chosen": "x", "rejected": "y"}, "chosen"),
    (PAIRS, {"instruction": "q", "chosen": "x", "rejected": "y"}, "rejected"),
    (PAIRS, {"prompt": "q", "pos_resp": "x", "neg_resp": "y"}, "neg_resp"),
    (PAIRS, {"chosen": "\n\nHuman: q\n\nAssistant: x",
             "rejected": "\n\nHuman: q\n\nAssistant: y"}, "rejected"),
    (PAIRS, SIDES, "rejected"),
    (PAIRS, {"conversations": [HUMAN], "chosen": {"from": "gpt", "value": "x"},
             "rejected": {"from": "gpt", "value": "y"}}, "chosen"),
]  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]], ending: str) -> Path:
    path = folder / f"rows.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif ending == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(
                {k: v if isinstance(v, str | None) else json.dumps(v) for k, v in row.items()}
                for row in rows
            )
    return path


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize(("kind", "row", "reply"), CASES)
def test_a_null_reply_is_an_empty_reply(
    tmp_path: Path, kind: Kind, row: dict[str, Any], reply: str, ending: str
) -> None:
    rows = [row, {**row, reply: None}, row]
    report = read(DataSource(path=str(write(tmp_path, rows, ending))), kind)
    assert (len(report.records), report.dropped) == (2, {"empty reply": 1})


@pytest.mark.parametrize(("kind", "row", "reply"), CASES)
def test_nan_in_json_is_null(tmp_path: Path, kind: Kind, row: dict[str, Any], reply: str) -> None:
    rows = [row, {**row, reply: float("nan")}]
    report = read(DataSource(path=str(write(tmp_path, rows, "jsonl"))), kind)
    assert (len(report.records), report.dropped) == (1, {"empty reply": 1})


def test_a_question_without_its_reply_is_still_a_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": None}, {"prompt": "q", "completion": "a"}]
    report = read(DataSource(path=str(write(tmp_path, rows, "jsonl"))), "prompts")
    assert (len(report.records), report.dropped) == (2, {})


def test_the_content_of_a_message_may_be_nan(tmp_path: Path) -> None:
    rows = [{"messages": [user("q"), {"role": "assistant", "content": text}]}
            for text in ("a", None, float("nan"))]  # fmt: skip
    report = read(DataSource(path=str(write(tmp_path, rows, "jsonl"))), "conversations")
    assert (len(report.records), report.dropped) == (1, {"empty reply": 2})
