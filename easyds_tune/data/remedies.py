"""The line of a spec that makes a file's columns those of a format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from easyds_tune.data.records import Kind

USUAL: dict[str, tuple[str, ...]] = {
    "prompt": (
        "prompt", "question", "query", "instruction", "input", "ask", "user", "human", "problem",
        "问题", "提问", "用户", "指令",
    ),
    "completion": (
        "completion", "response", "answer", "output", "reply", "assistant", "std_answer",
        "model_answer", "target", "solution", "gpt", "回答", "答案", "回复", "助手",
    ),
    "chosen": (
        "chosen", "chosen_response", "response_chosen", "preferred", "better", "winner", "accepted",
        "good", "pos_resp", "好回答",
    ),
    "rejected": (
        "rejected", "rejected_response", "response_rejected", "dispreferred", "worse", "loser",
        "bad", "neg_resp", "坏回答",
    ),
    "text": ("text", "content", "document", "body", "文本", "正文"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "chat"),
}  # fmt: skip
"""Names that a column of each meaning usually has, the likeliest first."""
_NEEDED: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "conversations": (("prompt", "completion"), ("messages",), ("text",)),
    "preferences": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "prompts": (("prompt",), ("messages",)),
    "text": (("text",),),
}
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
_ALPACA = {"prompt": "instruction", "completion": "output"}
_FORMATS = {"completion": "prompt-completion", "messages": "messages", "text": "text"}


def column_remedy(columns: Sequence[str], kind: Kind, taken: Sequence[str] = ()) -> str | None:
    """What to write so that the columns give records of a kind; None where nothing does.

    Args:
        columns: The columns that hold texts or messages.
        taken: All columns; an empty one makes room for the one that takes its name.
    """
    for needed in _NEEDED[kind]:
        renames = _renames(columns, needed)
        if renames is None:
            continue
        for name in list(renames.values()):
            if name in taken and name not in renames:
                renames[name] = f"other_{name}"
        if written := _written(renames, _format(columns, renames, needed)):
            return written
    return None


def ranked_remedy(question: str, replies: str, kind: Kind) -> str:
    """What to do with lists of replies to one question."""
    several = f"{_key(replies)} holds several replies in each record: "
    if kind == "conversations":
        return several + "write the best one alone, as text under `completion`"
    renames = {question: "instruction", replies: "output"}
    return f"{several}sort each list best first, and {_written(renames, 'alpaca')}"


def usual_column(columns: Sequence[str], meaning: str) -> str | None:
    """The column that most likely holds a meaning, whatever the case and blanks of its name."""
    plain = {column: re.sub(r"[\s_-]+", "_", column.strip().lower()) for column in columns}
    for name in USUAL[meaning]:
        if name in columns:
            return name
        for column in columns:
            if plain[column] == name:
                return column
    for name in USUAL[meaning][:4]:
        for column in columns:
            if plain[column].endswith(f"_{name}"):
                return column
    return None


def _renames(columns: Sequence[str], needed: tuple[str, ...]) -> dict[str, str] | None:
    """{column in the file: name}, each column for one meaning; None where one is missing."""
    left = list(columns)
    renames: dict[str, str] = {}
    for meaning in needed:
        column = usual_column(left, meaning)
        if column is None:
            return None
        left.remove(column)
        renames[column] = meaning
    if "completion" in needed and "instruction" in columns and "prompt" not in columns:
        renames = {old: _ALPACA[new] for old, new in renames.items()}
        if "input" not in columns and "context" in columns:
            renames["context"] = "input"
    return renames


def _format(columns: Sequence[str], renames: dict[str, str], needed: tuple[str, ...]) -> str | None:
    """The format to name where the renamed columns would be recognised as another one."""
    names = {renames.get(column, column) for column in columns}
    rivals = {"chosen", "rejected"} <= names or {"pos_resp", "neg_resp"} <= names
    if "chosen" in needed:
        return None
    if "output" in renames.values():
        return "alpaca" if rivals else None
    wanted = _FORMATS.get(needed[-1], "prompt")
    if needed == ("prompt", "completion"):
        rivals = rivals or bool(names & {"messages", "conversations"})
    if needed == ("text",):
        rivals = rivals or bool(names & {"prompt", "input", "messages", "conversations"})
    return wanted if rivals else None


def _written(renames: dict[str, str], layout: str | None) -> str:
    pairs = [f"{_key(old)}: {new}" for old, new in renames.items() if old != new]
    lines = [f"`columns: {{{', '.join(pairs)}}}`"] if pairs else []
    if layout:
        lines.append(f"`format: {layout}`")
    return "write " + " and ".join(lines) + " beside `path`" if lines else ""


def _key(name: str) -> str:
    """A column's name as a key of a YAML flow mapping."""
    if re.fullmatch(r"[^\W\d]\w*", name) and name.lower() not in _YAML_WORDS:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
