from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from easyds_tune.data.template import (
    choose_template,
    read_tokenizer_files,
    set_template,
    template_notes,
)
from easyds_tune.errors import SpecError
from tests.data.byte_tokenizer import CHATML, byte_tokenizer

OWN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def test_the_spec_comes_first_then_the_tokenizer_then_trl_then_plain_text(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(eos_token="<|im_end|>")
    assert choose_template(tokenizer, None).source == "trl"
    tokenizer.chat_template = OWN
    assert choose_template(tokenizer, None).text == OWN
    assert choose_template(tokenizer, CHATML).source == "spec"
    (tmp_path / "t.jinja").write_text(CHATML, encoding="utf-8")
    assert choose_template(tokenizer, "t.jinja", tmp_path).text == CHATML
    assert choose_template(tokenizer, "none").text is None


@pytest.mark.parametrize("written", [None, "none", OWN])
def test_a_set_template_is_chosen_again_once_saved(tmp_path: Path, written: str | None) -> None:
    tokenizer = byte_tokenizer(eos_token="<|im_end|>")  # looks like Qwen's
    wanted = choose_template(tokenizer, written)
    set_template(tokenizer, wanted)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert choose_template(again, None).text == wanted.text
    # Whoever gives such a tokenizer a template afterwards means it.
    again.chat_template = CHATML
    assert choose_template(again, None).text == CHATML


def test_a_tokenizer_keeps_its_own_templates_for_other_uses() -> None:
    tokenizer = byte_tokenizer(eos_token="<|im_end|>")
    tokenizer.chat_template = {"default": OWN, "tool_use": CHATML}
    set_template(tokenizer, choose_template(tokenizer, None))
    assert tokenizer.chat_template == {"default": OWN, "tool_use": CHATML}


def test_named_templates_of_a_tokenizer_give_the_default_one() -> None:
    tokenizer = byte_tokenizer(eos_token="<|im_end|>")
    tokenizer.chat_template = {"default": OWN, "tool_use": CHATML}
    assert choose_template(tokenizer, None).text == OWN


def test_a_model_without_chat_tokens_continues_plain_text(stories_tokenizer: Any) -> None:
    assert choose_template(stories_tokenizer, None).source == "none"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("absent.jinja", "readable file"),
        ("{% for m in messages %}", "cannot render a chat"),
        ("{{ nothing() }}", "cannot render a chat"),
        ("{{ 1 / 0 }}", "cannot render a chat: ZeroDivisionError: division by zero"),
        ("{{ messages }}{{ '\\ud800' }}", "cannot render a chat: UnicodeEncodeError"),
        ("{{ range(10 ** 9) | list }}", "cannot render a chat: OverflowError: Range too big"),
        ("{% for a in 'ab' %}" * 25 + "{% endfor %}" * 25, "too many statically nested blocks"),
        ("{{ messages[0].content }}", "must write every message's content"),
    ],
)
def test_a_template_that_cannot_render_a_chat_is_refused(
    bytes_tokenizer: Any, tmp_path: Path, template: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        choose_template(bytes_tokenizer, template, tmp_path)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen2_5_training", "qwen3", "glm4moe", "llama3"])
def test_real_templates_render(bytes_tokenizer: Any, shared_data: Path, name: str) -> None:
    path = shared_data / "tokenizers" / "chat_templates" / f"{name}.jinja"
    assert choose_template(bytes_tokenizer, str(path)).source == "spec"


def test_a_model_without_a_template_says_so_unless_the_spec_names_one(
    stories_tokenizer: Any,
) -> None:
    for written, told in ((None, True), ("none", False), (CHATML, False)):
        notes = template_notes(choose_template(stories_tokenizer, written), written)
        assert bool(notes) == told
    [note] = template_notes(choose_template(stories_tokenizer, None), None)
    assert note == (
        "model.model_name_or_path: has no chat template; training, judge and export use plain text "
        "with each message on a line of its own; give one in data.chat_template"
    )
    family = byte_tokenizer(eos_token="<|im_end|>")
    [note] = template_notes(choose_template(family, None), None)
    assert "use TRL's for the model's family" in note
    family.chat_template = OWN
    assert template_notes(choose_template(family, None), None) == []


@pytest.mark.parametrize("own", [None, OWN, {"default": OWN, "tool_use": CHATML}, "exported none"])
@pytest.mark.parametrize("written", [None, "none", CHATML])
def test_files_alone_tell_the_template_that_the_tokenizer_will_have(
    tmp_path: Path, own: Any, written: str | None
) -> None:
    tokenizer = byte_tokenizer(eos_token="<|im_end|>")
    tokenizer.chat_template = own
    if own == "exported none":
        set_template(tokenizer, choose_template(tokenizer, "none"))
    tokenizer.save_pretrained(tmp_path)
    files = read_tokenizer_files(tmp_path)
    assert files is not None
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert files.template(written) == choose_template(again, written)
    assert files.ends == ("<|im_end|>",)
    assert "<|im_start|>" in files.special


def test_files_that_cannot_be_read_tell_nothing(tmp_path: Path) -> None:
    assert read_tokenizer_files(tmp_path / "some" / "hub-name") is None
    for text in ("{", "[]", '{"chat_template": [1]}', '{"added_tokens_decoder": {"1": 2}}'):
        (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
        assert read_tokenizer_files(tmp_path) is None
