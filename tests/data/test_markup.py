from __future__ import annotations

import pytest

from easyds_tune.data.markup import markup_notes, template_markers
from easyds_tune.data.records import (
    Conversation,
    PlainText,
    PreferencePair,
    Prompt,
    Record,
    assistant,
    user,
)
from tests.data.byte_tokenizer import CHATML

LLAMA = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
GEMMA = "{% for m in messages %}<start_of_turn>{{ m.role }}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "ends", "text"),
    [
        (CHATML, ("<|im_end|>",), "<|im_start|>user\nq<|im_end|>"),
        (LLAMA, ("<s>", "</s>"), "[INST] q [/INST]"),
        (LLAMA, ("<s>", "</s>"), "<s>q"),
        (LLAMA, ("<s>", "</s>"), "a reply</s>"),
        (GEMMA, ("<bos>",), "<start_of_turn>user"),
    ],
)
def test_texts_to_which_a_template_was_applied_are_counted(
    template: str, ends: tuple[str, ...], text: str
) -> None:
    markers = template_markers(template, [], ends)
    records: list[Record] = [
        Conversation((user(text), assistant("a"))),
        Conversation((user("q"), assistant(text))),
        PreferencePair((user("q"),), "a", text),
        Prompt((user(text),)),
        Prompt((user("plain question with a [link] and 1 < 2 > 0, list[0] and <b>bold</b>"),)),
        PlainText(text),
    ]
    [note] = markup_notes({"data.train": records, "judge.prompts": records[4:]}, markers)
    assert note.startswith("data.train: 4 records hold the chat template's own tokens, e.g. ")
    assert note.endswith("; set data.chat_template: none, or remove them")


def test_a_tokenizers_special_token_counts_where_the_template_writes_it() -> None:
    assert template_markers("[gMASK]<sop>{{ messages }}", ["[gMASK]", "<other>"], [None]) == [
        "[gMASK]"
    ]


def test_without_a_template_nothing_is_applied_twice() -> None:
    assert template_markers(None, ["<|im_start|>"], ["</s>"]) == []
    assert markup_notes({"data.train": [Prompt((user("<|im_start|>"),))]}, []) == []
