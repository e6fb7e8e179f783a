"""Held-out splits and decontamination, both by content: the order of a file changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from easyds_tune.data.records import Conversation, Prompt, Record, prompt_key, prompt_of


def split_held_out(
    records: Sequence[Record], fraction: float, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """(train, held out), each in the given order; records of one prompt stay on one side.

    `fraction` of the distinct prompts is held out, at least one where it is above zero and two
    prompts exist; which ones depends on their text and the seed alone.
    """
    keys = [prompt_key(prompt_of(record)) for record in records]
    distinct = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}\n{key}".encode()).digest())
    count = round(fraction * len(distinct))
    if fraction > 0 and len(distinct) > 1:
        count = min(max(count, 1), len(distinct) - 1)
    held = set(distinct[:count])
    train = [record for record, key in zip(records, keys, strict=True) if key not in held]
    return train, [record for record, key in zip(records, keys, strict=True) if key in held]


def remove_overlap(train: Sequence[Record], prompts: Sequence[Prompt]) -> tuple[list[Prompt], int]:
    """(prompts that training never asks, how many were removed).

    Compared are whole chats before a reply, system messages left out, whitespace and NFKC
    normalised; every turn of a training conversation counts. A plain text counts as a whole.
    """
    asked: set[str] = set()
    for record in train:
        if isinstance(record, Conversation):
            asked.update(
                prompt_key(record.messages[:n])
                for n, message in enumerate(record.messages)
                if message["role"] == "assistant"
            )
        else:
            asked.add(prompt_key(prompt_of(record)))
    kept = [prompt for prompt in prompts if prompt_key(prompt.messages) not in asked]
    return kept, len(prompts) - len(kept)
