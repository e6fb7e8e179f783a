"""Texts that hold a chat template's own tokens: the template was applied to them already."""

from __future__ import annotations

import re
from collections.abc import Sequence

from easyds_tune.data.records import Conversation, PlainText, PreferencePair, Record, prompt_of
from easyds_tune.data.tokenise import Encoder

_MARKER = re.compile(r"<[^<>\s]+>|\[/?[^\[\]\s]+\]")
"""How templates write the beginning and end of a turn: <|im_start|>, </s>, [INST]."""
_THOUGHTS = frozenset({"<think>", "</think>"})
"""Written by some templates and by models; a reply may hold them as they are."""


def markup_notes(what: str, records: Sequence[Record], encoder: Encoder) -> list[str]:
    """How many records hold the template's own tokens; a plain text goes through no template."""
    markers = _markers(encoder)
    found = [
        marker
        for record in records
        if not isinstance(record, PlainText)
        and (marker := next((m for m in markers if m in _text(record)), None)) is not None
    ]
    if not found:
        return []
    return [
        f"{what}: {len(found)} records hold the chat template's own tokens, e.g. {found[0]}; they "
        "would be applied twice; set data.chat_template: none, or remove them"
    ]


def _markers(encoder: Encoder) -> list[str]:
    """What the template writes around messages, and the tokens that open and end a text."""
    if encoder.template.text is None:
        return []
    tokenizer = encoder.tokenizer
    ends = [token for token in (tokenizer.bos_token, tokenizer.eos_token) if token]
    written = [marker for marker in _MARKER.findall(encoder.markup) if marker not in _THOUGHTS]
    return list(dict.fromkeys([*written, *ends]))


def _text(record: Record) -> str:
    texts = [message["content"] for message in prompt_of(record)]
    match record:
        case Conversation(messages):
            texts.append(messages[-1]["content"])
        case PreferencePair(_, chosen, rejected):
            texts += [chosen, rejected]
    return "\n".join(texts)
