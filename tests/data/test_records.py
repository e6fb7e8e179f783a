from __future__ import annotations

from easyds_tune.data.records import (
    Conversation,
    PlainText,
    PreferencePair,
    Prompt,
    assistant,
    content_hash,
    normalise,
    prompt_key,
    prompt_of,
    user,
)


def test_a_prompt_is_what_stands_before_the_last_reply() -> None:
    chat = (user("q"), assistant("a"), user("q2"))
    assert prompt_of(Conversation((*chat, assistant("a2")))) == chat
    assert prompt_of(PreferencePair(chat, "x", "y")) == chat
    assert prompt_of(Prompt(chat)) == chat
    assert prompt_of(PlainText("t")) == (user("t"),)


def test_full_width_and_spacing_make_no_other_question() -> None:
    assert normalise("  ＡＢ\u3000c\n\nd ") == "AB c d"
    system = {"role": "system", "content": "s"}
    assert prompt_key([system, user("ａ  b")]) == prompt_key([user("a b")])
    assert prompt_key([user("a")]) != prompt_key([assistant("a")])


def test_the_content_hash_sees_kind_text_and_order() -> None:
    a, b = PlainText("a"), PlainText("b")
    assert content_hash([a, b]) == content_hash([PlainText("a"), PlainText("b")])
    assert len({content_hash(rows) for rows in ([a, b], [b, a], [a], [Prompt((user("a"),))])}) == 4
