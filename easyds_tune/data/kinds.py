"""From the record that a file holds to the kind of record that an algorithm needs."""

from __future__ import annotations

from collections.abc import Sequence

from easyds_tune.data.columns import Dirty, Malformed
from easyds_tune.data.messages import MEDIA, PLACEHOLDER
from easyds_tune.data.records import (
    Conversation,
    Kind,
    Message,
    PlainText,
    PreferencePair,
    Prompt,
    Record,
    prompt_of,
)

EMPTY_REPLY = "empty reply"
NO_REPLY = "no reply at the end"


class WrongKind(Exception):
    """The format cannot give the kind that was asked for; true of all its records."""


def checked(record: Record) -> Record:
    """Refuse what no tokenizer can take or no training can use."""
    prompt = prompt_of(record)
    replies: list[str] = []
    match record:
        case Conversation(messages):
            replies = [messages[-1]["content"]]
        case PreferencePair(_, chosen, rejected):
            replies = [chosen, rejected]
        case PlainText(text):
            _require(text, "empty text")
    for reply in replies:
        _require(reply, EMPTY_REPLY)
    if len({reply.strip() for reply in replies}) < len(replies):
        raise Dirty("chosen equals rejected")
    asked = _asked(prompt)
    _require("".join(asked), "empty prompt")
    for turn in asked:
        _require(turn, "empty turn")
    questions = [message["content"] for message in prompt if message["role"] == "user"]
    if not isinstance(record, PlainText) and any(map(PLACEHOLDER.search, questions)):
        raise Dirty(MEDIA)
    try:
        "".join([*(m["content"] for m in prompt), *replies]).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed(
            f"holds half a surrogate pair ({error.object[error.start]!r}), which is no character; "
            "write the whole pair"
        ) from error
    return record


def _asked(prompt: Sequence[Message]) -> list[str]:
    return [message["content"] for message in prompt if message["role"] != "system"]


def _require(text: str, reason: str) -> None:
    if not text.strip():
        raise Dirty(reason)


def as_kind(record: Record, kind: Kind) -> Record:
    """The record as one of a kind: without its reply for prompts, without masked ends to imitate.

    Raises WrongKind where its format holds no such thing, Dirty where this one record does not.
    """
    match kind, record:
        case ("conversations", Conversation()):
            return _trained_part(record)
        case ("conversations", PlainText()):
            return record
        case ("conversations", Prompt()):
            raise Dirty(NO_REPLY)
        case ("preferences", PreferencePair()) | ("prompts", Prompt()) | ("text", PlainText()):
            return record
        case "prompts", Conversation() | PreferencePair():
            return Prompt(prompt_of(record))
    held = {
        Conversation: "conversations",
        PreferencePair: "preference pairs",
        Prompt: "prompts",
        PlainText: "plain text",
    }[type(record)]
    raise WrongKind(f"holds {held} where {kind} are asked for")


def _trained_part(record: Conversation) -> Conversation:
    """The conversation up to its last reply that is trained."""
    trained = [
        n
        for n, message in enumerate(record.messages)
        if message["role"] == "assistant" and n not in record.context
    ]
    if not trained:
        raise Dirty("every reply is masked")
    end = trained[-1] + 1
    return Conversation(record.messages[:end], tuple(n for n in record.context if n < end))
