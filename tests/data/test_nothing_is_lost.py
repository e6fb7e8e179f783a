"""Random records in every format and kind of file: no string is lost unless a note names it."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyds_tune.data.read import read
from easyds_tune.data.records import Kind
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

Row = dict[str, Any]
SEEDS = range(6)
FILES = [
    "jsonl", "json", "csv-json", "csv-repr", "tsv-json", "parquet", "jsonl.gz", "parquet-lists",
]  # fmt: skip
TRICKY = ["", " 栈\n", ' {"from": "x", "to": 1}', " 'it''s'", " [1, 2]", ' "quoted", ', " Human: q"]
WORD = re.compile(r"w\d+w")


class Words:
    """Texts that are all different, some of them with a tail that looks like something else."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"w{self.count}w{self.random.choice(TRICKY)}"

    def maybe(self, share: float) -> bool:
        return self.random.random() < share

    def turns(self, *, ends_with: str, keys: tuple[str, str] = ("role", "content")) -> list[Row]:
        """A chat of either spelling; its messages have masks and names now and then."""
        names = ("human", "gpt") if keys[0] == "from" else ("user", "assistant")
        count = 2 * self.random.randint(1, 2) - (ends_with == "user")
        chat: list[Row] = [{keys[0]: names[n % 2], keys[1]: self()} for n in range(count)]
        if self.maybe(0.3):
            chat.insert(0, {keys[0]: "system", keys[1]: self()})
        for message in chat:
            if self.maybe(0.3):
                message["name"] = self()
            if self.maybe(0.3) and message[keys[0]] == names[1]:
                message["weight"] = self.random.choice([0, 1])
            if self.maybe(0.05):
                message["reasoning_content"] = self()
        return chat


def messages(w: Words) -> Row:
    return {"messages": w.turns(ends_with="assistant")}


def sharegpt(w: Words) -> Row:
    return {"conversations": w.turns(ends_with="assistant", keys=("from", "value"))}


def prompt_completion(w: Words) -> Row:
    return {"prompt": w(), "completion": w()}


def chat_completion(w: Words) -> Row:
    return {
        "prompt": w.turns(ends_with="user"),
        "completion": [{"role": "assistant", "content": w()}],
    }


def preference(w: Words) -> Row:
    return {"prompt": w(), "chosen": w(), "rejected": w(), "margin": w.random.choice([1, 0.5])}


def chat_preference(w: Words) -> Row:
    prompt = w.turns(ends_with="user")
    sides = ({"role": "assistant", "content": w()} for _ in range(2))
    return dict(zip(("chosen", "rejected"), ([*prompt, side] for side in sides), strict=True))


def sharegpt_preference(w: Words) -> Row:
    chat = w.turns(ends_with="user", keys=("from", "value"))
    sides = {name: {"from": "gpt", "value": w()} for name in ("chosen", "rejected")}
    return {"conversations": chat, **sides}


def alpaca(w: Words) -> Row:
    return {
        "instruction": w(),
        "input": w() if w.maybe(0.5) else "",
        "output": w(),
        "history": [[w(), w()]] if w.maybe(0.5) else [],
    }


def ranked(w: Words) -> Row:
    return {"instruction": w(), "output": [w() for _ in range(w.random.randint(2, 3))]}


def hh(w: Words) -> Row:
    opening = f"\n\nHuman: {w()}\n\nAssistant: {w()}\n\nHuman: {w()}\n\nAssistant:"
    return {"chosen": f"{opening} {w()}", "rejected": f"{opening} {w()}"}


def marked(w: Words) -> Row:
    opening = f"\n\nHuman: {w()}\n\nAssistant: {w()}\n\nHuman: {w()}\n\nAssistant:"
    return {"prompt": opening, "chosen": f" {w()}", "rejected": f" {w()}"}


def easyds_reward(w: Words) -> Row:
    opening = f"用户: {w()}\n助手:"
    return {"chosen": f"{opening} {w()}", "rejected": f"{opening} {w()}"}


def easyds_sft(w: Words) -> Row:
    chat = [{"role": "user", "content": w()}]
    return {
        "input": json.dumps(chat),
        "output": json.dumps({"role": "assistant", "content": w()}),
    }


LAYOUTS: dict[Callable[[Words], Row], Kind] = {
    messages: "conversations",
    sharegpt: "conversations",
    prompt_completion: "conversations",
    chat_completion: "conversations",
    alpaca: "conversations",
    easyds_sft: "conversations",
    preference: "preferences",
    chat_preference: "preferences",
    sharegpt_preference: "preferences",
    ranked: "preferences",
    hh: "preferences",
    marked: "preferences",
    easyds_reward: "preferences",
    lambda w: {"prompt": w(), "pos_resp": w(), "neg_resp": w(), "pos_type": w()}: "preferences",
    lambda w: {"prompt": w()}: "prompts",
    lambda w: {"prompt": w.turns(ends_with="user")}: "prompts",
    lambda w: {"input": w(), "topic": w()}: "prompts",
    lambda w: {"text": w(), "url": w()}: "text",
}
EXTRAS: dict[str, Callable[[Words], object]] = {
    "system": lambda w: w() if w.maybe(0.7) else None,
    "source": lambda w: w(),
    "meta": lambda w: {"where": w()},
    "tools": lambda w: [{"name": w()}] if w.maybe(0.2) else [],
    "images": lambda w: [w()] if w.maybe(0.2) else None,
    "tags": lambda w: [w(), w()],
}


def rows_of(layout: Callable[[Words], Row], words: Words) -> list[Row]:
    extras = [name for name in EXTRAS if words.maybe(0.3)]
    return [
        {**layout(words), **{name: EXTRAS[name](words) for name in extras}}
        for _ in range(words.random.randint(1, 4))
    ]


def write(folder: Path, rows: list[Row], how: str) -> Path:
    ending, _, nested = how.partition("-")
    path = folder / f"rows.{ending}"
    names = list(dict.fromkeys(name for row in rows for name in row))
    if ending == "parquet":
        table = [{name: row.get(name) for name in names} for row in rows]
        pq.write_table(
            pa.Table.from_pylist([structs(row) if nested else row for row in table]), path
        )
    elif ending in ("csv", "tsv"):
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names, delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            for row in rows:
                writer.writerow({name: field(value, nested) for name, value in row.items()})
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = f"[{','.join(lines)}]" if ending == "json" else "\n".join(lines)
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    return path


def field(value: object, nested: str) -> object:
    if isinstance(value, list | dict):
        return json.dumps(value) if nested == "json" else repr(value)
    return value


CHATS = ("messages", "conversations", "prompt", "chosen", "rejected", "completion")


def structs(row: Row) -> Row:
    """Lists of messages as Parquet writes a sequence of them: a struct of lists."""
    return {
        name: {key: [item.get(key) for item in value] for key in {k for i in value for k in i}}
        if name in CHATS and isinstance(value, list)
        else value
        for name, value in row.items()
    }


def texts_in(value: object) -> Iterator[str]:
    """Every text of a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def words_in(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every word of a value, with the column or the message's key that it stands in."""
    if isinstance(value, str):
        yield from ((path, word) for word in WORD.findall(value))
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}{'.' if path else ''}{key}"
            yield from words_in(item, inner if "." in inner or not path or "[]" in path else path)
    elif isinstance(value, list | tuple):
        of_messages = all(isinstance(item, dict) for item in value)
        for item in value:
            yield from words_in(item, f"{path}[]" if of_messages and "[]" not in path else path)


def is_named(path: str, notes: str) -> bool:
    return any(
        f"{name} " in notes or f"{name}," in notes or f"{name}[" in notes
        for name in (path, path.split("[")[0].split(".")[0])
    )


@pytest.mark.parametrize("how", FILES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_string_is_in_a_record_or_named_in_a_note(
    tmp_path: Path, how: str, seed: int
) -> None:
    refused = read_files = 0
    for number, (layout, kind) in enumerate(LAYOUTS.items()):
        rows = rows_of(layout, Words(1000 * seed + number))
        try:
            report = read(DataSource(path=str(write(tmp_path, rows, how))), kind)
        except DataError as error:
            # A list that CSV made a text is no list of replies.
            dropped, listed = "records were dropped" in str(error), layout is ranked
            refused += dropped or listed
            continue
        read_files += 1
        texts = [text for record in report.records for text in texts_in(asdict(record))]
        assert not any(re.search(r"""['"](content|value)['"]:""", text) for text in texts)
        kept = {word for text in texts for word in WORD.findall(text)}
        notes = " ".join(note for note in report.notes if note.startswith("not used"))
        absent = 0
        for row in rows:
            found = list(words_in(row))
            if not kept & {word for _, word in found}:
                absent += 1
                continue
            lost = [path for path, word in found if word not in kept and not is_named(path, notes)]
            if any("later turns are cut" in note for note in report.notes):
                lost = [path for path in lost if not path.startswith(("messages", "conversations"))]
            assert not lost, (number, lost, report)
        assert absent == report.dropped.total()
    assert read_files + refused == len(LAYOUTS)
    assert read_files > len(LAYOUTS) / 2
