"""Dialogues as one marked-up text: `Human:` and `Assistant:`, `用户:` and `助手:`."""

from __future__ import annotations

import re

from easyds_tune.data.columns import Dirty, Malformed
from easyds_tune.data.records import Message

HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
EASYDS_TURN = re.compile(r"(?:\A\s*|\n)[ \t]*(系统|用户|助手)[:：]")
_ANY_MARK = re.compile(
    r"^[ \t]*(?:#+ *)?(Human|User|Assistant|Instruction|Response|用户|助手) *[:：]",
    re.MULTILINE | re.IGNORECASE,
)
_ROLES = {
    "Human": "user",
    "Assistant": "assistant",
    "系统": "system",
    "用户": "user",
    "助手": "assistant",
}


def marked_turns(text: str) -> list[Message] | None:
    """The turns of a text that opens with the user's or the system's mark and has the assistant's.

    None for any other text. An empty last turn is where the reply goes, and is left off.
    """
    for pattern in (HH_TURN, EASYDS_TURN):
        if (first := pattern.match(text)) and _ROLES[first[1]] != "assistant":
            turns = _split(text, pattern)
            if all(turn["role"] != "assistant" for turn in turns):
                return None
            last = turns[-1]
            waits = last["role"] == "assistant" and not last["content"]
            return _joined(turns[:-1] if waits else turns)
    return None


def looks_marked(text: str) -> bool:
    """Whether lines of a text are marked as turns, in more ways than are parsed."""
    marks = [mark[1].lower() for mark in _ANY_MARK.finditer(text)]
    return len(set(marks)) > 1 or _ANY_MARK.match(text.lstrip()) is not None


def dialogue(text: str, pattern: re.Pattern[str], field: str) -> tuple[list[Message], str]:
    """Prompt and last reply of a dialogue in one text; turns of one speaker in a row are joined."""
    if not text:
        raise Dirty("empty reply")
    if not pattern.match(text):
        raise Malformed(f"{field} must open with a marked turn, got {text[:40]!r}")
    turns = _split(text, pattern)
    last = turns.pop()
    if last["role"] != "assistant":
        raise Dirty("the last turn is not the assistant's")
    return _joined(turns), last["content"]


def _split(text: str, pattern: re.Pattern[str]) -> list[Message]:
    marks = list(pattern.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": _ROLES[mark[1]], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _joined(turns: list[Message]) -> list[Message]:
    chat: list[Message] = []
    for message in turns:
        if chat and chat[-1]["role"] == message["role"]:
            chat[-1]["content"] += "\n\n" + message["content"]
        else:
            chat.append(message)
    return chat
