"""The four kinds of record that everything else works on, and what identifies their content."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Message = dict[str, str]
"""One chat message: `role` (system, user, assistant or tool) and `content`."""

Kind = Literal["conversations", "preferences", "prompts", "text"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat to imitate; the last message is the assistant's."""

    messages: tuple[Message, ...]
    context: tuple[int, ...] = ()
    """Indexes of assistant messages that are read but not trained on."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two replies to one prompt, the better one first."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float | None = None
    """How much better the chosen reply is, in units of reward; None where the file does not say."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat that waits for the assistant's reply."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text to continue, with no roles in it."""

    text: str


Record = Conversation | PreferencePair | Prompt | PlainText


def user(content: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def prompt_of(record: Record) -> tuple[Message, ...]:
    """The messages before the last reply; a plain text is a prompt of its own."""
    match record:
        case Conversation(messages):
            return messages[:-1]
        case PreferencePair(prompt, _, _):
            return prompt
        case Prompt(messages):
            return messages
        case PlainText(text):
            return (user(text),)


def normalise(text: str) -> str:
    """NFKC with every run of whitespace as one space: equal to a reader, equal here."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def prompt_key(messages: Sequence[Message]) -> str:
    """What makes two prompts the same question: roles and normalised contents, system left out."""
    return json.dumps(
        [[m["role"], normalise(m["content"])] for m in messages if m["role"] != "system"],
        ensure_ascii=False,
    )


def content_hash(records: Iterable[Record]) -> str:
    """SHA-256 of the records in order, as hex; the same data gives the same hash everywhere."""
    digest = hashlib.sha256()
    for record in records:
        # A field at its default is left out, so data without it keeps the hash it always had.
        fields = {name: value for name, value in asdict(record).items() if value not in ((), None)}
        line = json.dumps([type(record).__name__, fields], sort_keys=True)
        digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()
