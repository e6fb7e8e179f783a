"""Texts that hold a chat template's own tokens: the template was applied to them already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from easyds_tune.data.records import Conversation, PlainText, PreferencePair, Record, prompt_of

_MARKER = re.compile(r"<\|[^<>|\s]+\|>|<[a-z]+_of_turn>|\[/?[A-Z_]{2,}\]|<</?SYS>>")
"""How families open and close a turn, whether or not the tokenizer knows these as tokens."""


def template_markers(
    written: str | None, special: Iterable[str], ends: Iterable[str | None]
) -> list[str]:
    """What a template writes around messages, and the tokens that open and end a text.

    written: the template's text or a chat that it rendered; None where there is no template.
    special: the tokenizer's special tokens. ends: its BOS and EOS.
    """
    if written is None:
        return []
    known = sorted(token for token in special if token and token in written)
    found = [*_MARKER.findall(written), *known, *(end for end in ends if end)]
    return list(dict.fromkeys(found))


def markup_notes(sources: Mapping[str, Sequence[Record]], markers: Sequence[str]) -> list[str]:
    """For each source, how many records hold such tokens; a plain text goes through no template."""
    notes = []
    for what, records in sources.items():
        texts = [_text(record) for record in records if not isinstance(record, PlainText)]
        found = [[marker for marker in markers if marker in text] for text in texts]
        held = [those for those in found if those]
        if held:
            notes.append(
                f"{what}: {len(held)} records hold the chat template's own tokens, e.g. "
                f"{held[0][0]}; they would be applied twice; set data.chat_template: none, or "
                "remove them"
            )
    return notes


def _text(record: Record) -> str:
    texts = [message["content"] for message in prompt_of(record)]
    match record:
        case Conversation(messages):
            texts.append(messages[-1]["content"])
        case PreferencePair(_, chosen, rejected):
            texts += [chosen, rejected]
    return "\n".join(texts)
