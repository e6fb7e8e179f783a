"""Messages out of a record's fields, whatever way the file writes them down.

Role/content and from/value messages, lists of typed parts, messages as JSON inside a string, and
dialogues as one marked-up text. `Malformed` is an error of the file; `Dirty` is a record that real
data holds now and then and that is dropped and counted.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable
from itertools import islice

from easyds_tune.data.records import Message, assistant, user

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}
HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
EASYDS_TURN = re.compile(r"(?:\A|\n)[ \t]*(系统|用户|助手)[:：]")
_TURN_ROLES = {
    "Human": "user",
    "Assistant": "assistant",
    "系统": "system",
    "用户": "user",
    "助手": "assistant",
}
_JSON_MESSAGES = re.compile(r'\s*\[?\s*\{\s*"(role|content|from|value)"')

_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 3, 60, 60

Columns = dict[str, object]


class Malformed(Exception):
    """The record lacks a field or holds the wrong type: an error of the file."""


class Dirty(Exception):
    """The record is whole but of no use for training; the text is the reason it is counted by."""


def string(columns: Columns, field: str) -> str:
    """A field that must be there and be text."""
    if field not in columns:
        raise Malformed(f"needs the field {field!r}, has {named(columns)}")
    value = columns[field]
    if not isinstance(value, str):
        raise Malformed(f"{field} must be text, got {shape(value)}")
    return value


def optional_string(columns: Columns, field: str) -> str:
    """A field that may be absent, null or empty: then the empty string."""
    return "" if columns.get(field) is None else string(columns, field)


def messages(columns: Columns, field: str) -> list[Message]:
    """A field of messages: a list of them, one alone, or text, which is one user message."""
    if field not in columns:
        raise Malformed(f"needs the field {field!r}, has {named(columns)}")
    value = columns[field]
    if isinstance(value, str):
        value = _decode_json(value, field)
    if isinstance(value, str):
        return [user(value)]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise Malformed(f"{field} must be text or a list of messages, got {shape(value)}")
    return [_message(item, f"{field}[{n}]") for n, item in enumerate(value)]


def reply(columns: Columns, field: str) -> list[Message]:
    """A field that holds a reply: text, which is one assistant message, or messages."""
    value = columns.get(field)
    if isinstance(value, str) and isinstance(_decode_json(value, field), str):
        return [assistant(value)]
    return messages(columns, field)


def dialogue(text: str, turn: re.Pattern[str], field: str) -> tuple[list[Message], str]:
    """Prompt and last reply of a dialogue in one text; turns of one speaker in a row are joined."""
    marks = list(turn.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise Malformed(f"{field} must open with a marked turn, got {text[:40]!r}")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns = [
        {"role": _TURN_ROLES[mark[1]], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]
    last = turns.pop()
    if last["role"] != "assistant":
        raise Dirty("the last turn is not the assistant's")
    prompt: list[Message] = []
    for message in turns:
        if prompt and prompt[-1]["role"] == message["role"]:
            prompt[-1]["content"] += "\n\n" + message["content"]
        else:
            prompt.append(message)
    if prompt and prompt[-1]["role"] == "assistant":
        raise Dirty("the prompt ends with the assistant's turn")
    return prompt, last["content"]


def _decode_json(text: str, field: str) -> object:
    """Messages written as JSON inside a string; any other text stays as it is."""
    if not _JSON_MESSAGES.match(text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{field} opens like messages in JSON, and is broken: {error}") from error


def _message(item: object, where: str) -> Message:
    if not isinstance(item, dict):
        raise Malformed(f"{where} must be a message, got {shape(item)}")
    role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
    role = item.get(role_key)
    if not isinstance(role, str) or role not in ROLES:
        raise Malformed(f"{where}.{role_key} must be one of {', '.join(ROLES)}, got {shape(role)}")
    if item.get("tool_calls"):
        raise Dirty("tool calls are not supported")
    return {"role": ROLES[role], "content": _content(item.get(content_key), where, content_key)}


def _content(value: object, where: str, key: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part, f"{where}.{key}[{n}]") for n, part in enumerate(value))
    raise Malformed(f"{where}.{key} must be text, got {shape(value)}")


def _part(part: object, where: str) -> str:
    """One typed part of a content; TRL writes its text under `text`, others under `value`."""
    if isinstance(part, dict) and part.get("type") == "text":
        text = part.get("text", part.get("value"))
        if isinstance(text, str):
            return text
    raise Malformed(f"{where} must be a text part, got {shape(part)}")


def named(columns: Iterable[str]) -> str:
    """The names of columns, the first of them where there are many."""
    first = [repr(name) if len(name) <= 60 else f"{name[:60]!r}…" for name in islice(columns, 21)]
    return ", ".join([*first[:20], "…"] if len(first) > 20 else first)


def shape(value: object) -> str:
    """Type and beginning of a value, however deep or long it is."""
    text = _SHOWN.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '…'}"
