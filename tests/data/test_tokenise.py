from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from easyds_tune.data.records import (
    Conversation,
    PlainText,
    PreferencePair,
    Prompt,
    assistant,
    user,
)
from easyds_tune.data.template import Template, choose_template
from easyds_tune.data.tokenise import IGNORED, Encoder, check_room
from easyds_tune.errors import DataError, ModelError
from tests.data.byte_tokenizer import CHATML, byte_tokenizer


def llama_like_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, with a first token that the tokenizer itself puts before every text."""
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


CHAT = (user("q1"), assistant("n"), user("n?"), assistant("done"))
PLAIN = Template(None, "none")
BYTES = byte_tokenizer(eos_token="<|im_end|>")


def chatml(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, Template(CHATML, "spec"))


def trained_text(encoder: Encoder, encoded: dict[str, list[int]]) -> str:
    kept = [label for label in encoded["labels"] if label != IGNORED]
    return str(encoder.tokenizer.decode(kept))


def test_a_prompt_ends_where_the_reply_begins(bytes_tokenizer: Any) -> None:
    encoder = chatml(bytes_tokenizer)
    text = bytes_tokenizer.decode(encoder.prompt_ids([user("q")]))
    assert text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"


def test_every_reply_of_a_chat_trains_with_its_end_and_nothing_else(bytes_tokenizer: Any) -> None:
    # The reply "n" also occurs in the markup (im_end) and in the question after it.
    encoder = chatml(bytes_tokenizer)
    encoded = encoder.conversation(Conversation(CHAT))
    assert trained_text(encoder, encoded) == "n<|im_end|>\ndone<|im_end|>\n"
    whole = bytes_tokenizer.apply_chat_template(list(CHAT), chat_template=CHATML, tokenize=False)
    assert bytes_tokenizer.decode(encoded["input_ids"]) == whole


@pytest.mark.parametrize("template", [Template(CHATML, "spec"), PLAIN])
def test_a_reply_that_is_context_trains_neither_its_text_nor_its_end(
    bytes_tokenizer: Any, template: Template
) -> None:
    encoder = Encoder(bytes_tokenizer, template)
    masked = encoder.conversation(Conversation(CHAT, context=(1,)))
    text = trained_text(encoder, masked)
    assert text == ("done<|im_end|>" if template.text is None else "done<|im_end|>\n")
    assert masked["input_ids"] == encoder.conversation(Conversation(CHAT))["input_ids"]


def test_of_equal_replies_the_one_that_is_context_is_masked(bytes_tokenizer: Any) -> None:
    encoder = chatml(bytes_tokenizer)
    chat = (user("q"), assistant("a"), user("q"), assistant("a"), user("q"), assistant("b"))
    for context, trained in (((1,), 2), ((1, 3), 1), ((3,), 2)):
        labels = encoder.conversation(Conversation(chat, context))["labels"]
        ends = [n for n, label in enumerate(labels) if label == bytes_tokenizer.eos_token_id]
        assert len(ends) == trained


def test_labels_are_the_input_ids_or_ignored(bytes_tokenizer: Any) -> None:
    encoded = chatml(bytes_tokenizer).conversation(Conversation(CHAT))
    assert len(encoded["labels"]) == len(encoded["input_ids"])
    assert all(
        label in (token, IGNORED)
        for token, label in zip(encoded["input_ids"], encoded["labels"], strict=True)
    )


def test_a_pair_continues_the_ids_that_generation_starts_from(bytes_tokenizer: Any) -> None:
    encoder = chatml(bytes_tokenizer)
    pair = encoder.pair(PreferencePair((user("q"),), "yes", "no"))
    assert pair["prompt_ids"] == encoder.prompt_ids([user("q")])
    assert bytes_tokenizer.decode(pair["chosen_ids"]) == "yes<|im_end|>\n"
    assert bytes_tokenizer.decode(pair["rejected_ids"]) == "no<|im_end|>\n"
    assert encoder.text(pair["rejected_ids"]) == "no\n"


def test_without_a_template_every_message_has_its_line_and_the_reply_ends_with_eos(
    bytes_tokenizer: Any,
) -> None:
    encoder = Encoder(bytes_tokenizer, PLAIN)
    pair = encoder.pair(PreferencePair((user("x"), user("y")), "z", "w"))
    assert bytes_tokenizer.decode(pair["prompt_ids"]) == "x\ny\n"
    assert bytes_tokenizer.decode(pair["chosen_ids"]) == "z<|im_end|>"
    encoded = encoder.conversation(PlainText("abc"))
    assert encoded["labels"] == encoded["input_ids"]
    assert bytes_tokenizer.decode(encoded["input_ids"]) == "abc<|im_end|>"
    chat = encoder.conversation(Conversation(CHAT))
    assert bytes_tokenizer.decode(chat["input_ids"]) == "q1\nn\nn?\ndone<|im_end|>"
    assert trained_text(encoder, chat) == "ndone<|im_end|>"


def test_white_space_at_a_messages_end_is_its_separator(bytes_tokenizer: Any) -> None:
    encoder = Encoder(bytes_tokenizer, PLAIN)
    for prompt in ("q ->\n\n", "q: ", "q\u3000"):
        pair = encoder.pair(PreferencePair((user(prompt),), "a", "b"))
        assert bytes_tokenizer.decode(pair["prompt_ids"]) == prompt
    chat = encoder.conversation(
        Conversation((user("q "), assistant("a "), user("r"), assistant("b")))
    )
    assert bytes_tokenizer.decode(chat["input_ids"]) == "q a r\nb<|im_end|>"
    assert trained_text(encoder, chat) == "a b<|im_end|>"


def test_text_that_brings_its_own_first_and_last_tokens_does_not_get_them_twice() -> None:
    tokenizer = llama_like_tokenizer()
    encoder = Encoder(tokenizer, PLAIN)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    pair = encoder.pair(PreferencePair((user("<s>[INST] q [/INST] "),), "yes</s>\n", "no"))
    assert (pair["prompt_ids"].count(bos), pair["prompt_ids"][0]) == (1, bos)
    assert pair["chosen_ids"].count(eos) == pair["rejected_ids"].count(eos) == 1
    assert encoder.prompt_ids([user("<s>q")]).count(bos) == 1
    for record in (PlainText("<s>text</s>"), Conversation((user("<s>q"), assistant("text</s>")))):
        ids = encoder.conversation(record)["input_ids"]
        assert (ids.count(bos), ids.count(eos), ids[-1]) == (1, 1, eos)


def test_an_end_token_inside_a_reply_does_not_stand_for_its_end() -> None:
    encoder = Encoder(llama_like_tokenizer(), PLAIN)
    reply = encoder.pair(PreferencePair((user("q"),), "a</s>b", "c"))["chosen_ids"]
    assert encoder.tokenizer.decode(reply) == "a</s>b</s>"


def test_tokens_that_would_merge_across_the_boundary_are_kept_apart(bytes_tokenizer: Any) -> None:
    joint = bytes_tokenizer("ab")["input_ids"]
    apart = bytes_tokenizer("a")["input_ids"] + bytes_tokenizer("b")["input_ids"]
    assert (len(joint), len(apart)) == (1, 2)
    bare = "{% for m in messages %}{{ m.content }}{% endfor %}"
    encoder = Encoder(bytes_tokenizer, Template(bare, "spec"))
    eos = bytes_tokenizer.eos_token_id
    pair = encoder.pair(PreferencePair((user("a"),), "b", "c"))
    assert pair["prompt_ids"] + pair["chosen_ids"] == [*apart, eos]
    encoded = encoder.conversation(Conversation((user("a"), assistant("b"))))
    assert encoded == {"input_ids": [*apart, eos], "labels": [IGNORED, apart[1], eos]}


def test_a_sentencepiece_reply_keeps_its_word_boundary_and_bos_opens_once(
    stories_tokenizer: Any,
) -> None:
    encoder = Encoder(stories_tokenizer, PLAIN)
    pair = encoder.pair(PreferencePair((user("Once upon a time\n"),), "There was", "It is"))
    assert pair["prompt_ids"] == stories_tokenizer("Once upon a time\n")["input_ids"]
    joint = stories_tokenizer("Once upon a time\nThere was")["input_ids"]
    assert pair["prompt_ids"] + pair["chosen_ids"] == [*joint, stories_tokenizer.eos_token_id]


def test_a_template_with_thoughts_trains_each_reply_without_them(minimind_tokenizer: Any) -> None:
    encoder = Encoder(minimind_tokenizer, choose_template(minimind_tokenizer, None))
    encoded = encoder.conversation(Conversation(CHAT))
    assert trained_text(encoder, encoded) == "n<|im_end|>\ndone<|im_end|>\n"
    text = minimind_tokenizer.decode(encoded["input_ids"])
    assert text == minimind_tokenizer.apply_chat_template(list(CHAT), tokenize=False)


def test_a_template_that_opens_replies_otherwise_still_follows_the_prompt() -> None:
    tokenizer = byte_tokenizer(eos_token="<|im_end|>")
    template = CHATML.replace("assistant\n{% endif", "assistant\n<think>{% endif")
    encoder = Encoder(tokenizer, Template(template, "spec"))
    pair = encoder.pair(PreferencePair((user("n"),), "n", "m"))
    assert tokenizer.decode(pair["prompt_ids"]).endswith("assistant\n<think>")
    assert tokenizer.decode(pair["chosen_ids"]) == "n<|im_end|>\n"


def test_a_template_that_closes_no_turn_gets_an_end_token(shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "chatglm3"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="</s>", unk_token="<unk>"
    )
    template = "{% for m in messages %}<|{{ m.role }}|>\n {{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    encoder = Encoder(tokenizer, Template(template, "spec"))
    pair = encoder.pair(PreferencePair((user("什么是栈？"),), "想一想", "不知道"))
    assert pair["chosen_ids"][-1] == tokenizer.eos_token_id
    assert encoder.text(pair["chosen_ids"]).strip() == "想一想"


@pytest.mark.parametrize(
    "name", ["qwen2_5", "qwen2_5_training", "qwen3", "qwen3_training", "glm4moe", "llama3"]
)
def test_with_real_templates_replies_train_and_the_last_follows_the_prompt(
    bytes_tokenizer: Any, shared_data: Path, name: str
) -> None:
    path = shared_data / "tokenizers" / "chat_templates" / f"{name}.jinja"
    encoder = Encoder(bytes_tokenizer, choose_template(bytes_tokenizer, str(path)))
    encoded = encoder.conversation(Conversation(CHAT))
    opening = encoder.prompt_ids(CHAT[:-1])
    assert encoded["input_ids"][: len(opening)] == opening
    trained = trained_text(encoder, encoded)
    assert trained.startswith("n")
    assert "done" in trained
    assert "q1" not in trained
    assert "n?" not in trained


def test_a_template_that_refuses_a_record_is_a_data_error(bytes_tokenizer: Any) -> None:
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    encoder = Encoder(bytes_tokenizer, Template(strict + CHATML, "spec"))
    with pytest.raises(DataError, match="user first"):
        encoder.prompt_ids([{"role": "system", "content": "s"}])


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="eos_token"):
        Encoder(byte_tokenizer(), PLAIN)


def test_prompts_without_room_for_a_reply_are_named(bytes_tokenizer: Any) -> None:
    encoder = Encoder(bytes_tokenizer, PLAIN)
    prompts = [Prompt((user("x" * length),)) for length in (10, 20, 30)]
    assert check_room(prompts, encoder, max_new_tokens=11, context_length=32) == [
        f"prompt 3 ({'x' * 30!r}) must leave room for a reply: 31 tokens + max_new_tokens 11 > "
        "context 32; shorten the prompt or lower max_new_tokens"
    ]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=2))
def test_any_chat_opens_with_the_ids_of_its_prompt(texts: list[str]) -> None:
    roles = (user, assistant)
    chat = tuple(roles[n % 2](text) for n, text in enumerate(texts[: len(texts) // 2 * 2]))
    for template in (PLAIN, Template(CHATML, "spec")):
        encoder = Encoder(BYTES, template)
        encoded = encoder.conversation(Conversation(chat))
        opening = encoder.prompt_ids(chat[:-1])
        assert encoded["input_ids"][: len(opening)] == opening
        assert len(encoded["labels"]) == len(encoded["input_ids"])
        assert encoded["labels"][-1] == encoded["input_ids"][-1]
