"""Held-out splits and decontamination, both by content: the order of a file changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from easyds_tune.data.records import Conversation, Message, Record, prompt_key, prompt_of

R = TypeVar("R", bound=Record)


def split_held_out(
    records: Sequence[Record], fraction: float, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """(train, held out), each in the given order; records of one first question stay together.

    So two conversations of which one continues the other are on one side. `fraction` of the
    distinct questions is held out, at least one where it is above zero and two exist; which ones
    depends on their text and the seed alone.
    """
    keys = [prompt_key(_first_question(record)) for record in records]
    distinct = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}\n{key}".encode()).digest())
    count = round(fraction * len(distinct))
    if fraction > 0 and len(distinct) > 1:
        count = min(max(count, 1), len(distinct) - 1)
    held = set(distinct[:count])
    train = [record for record, key in zip(records, keys, strict=True) if key not in held]
    return train, [record for record, key in zip(records, keys, strict=True) if key in held]


def _first_question(record: Record) -> tuple[Message, ...]:
    """The messages before the first reply to a user; the whole prompt where it has one turn."""
    prompt = prompt_of(record)
    roles = [message["role"] for message in prompt]
    start = roles.index("user") if "user" in roles else len(roles)
    end = roles.index("assistant", start) if "assistant" in roles[start:] else len(roles)
    return prompt[:end]


def remove_overlap(train: Sequence[Record], others: Sequence[R]) -> tuple[list[R], int]:
    """(prompts or held-out records that training never asks, how many were removed).

    Compared are whole chats before a reply, system messages left out, whitespace and NFKC
    normalised; every turn of a conversation counts, since all of its replies are trained on or
    measured. A plain text counts as a whole.
    """
    asked = {key for record in train for key in _asked_by(record)}
    kept = [other for other in others if not asked & _asked_by(other)]
    return kept, len(others) - len(kept)


def _asked_by(record: Record) -> set[str]:
    """What a record asks: the chat before each reply of a conversation, else its prompt."""
    if not isinstance(record, Conversation):
        return {prompt_key(prompt_of(record))}
    return {
        prompt_key(record.messages[:n])
        for n, message in enumerate(record.messages)
        if message["role"] == "assistant"
    }
