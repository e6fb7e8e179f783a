"""Which chat template turns messages into text.

The order: what the spec says; else the tokenizer's own; else none where an export says so; else
the one TRL ships for the model family whose special tokens the tokenizer has; else none, and the
model continues plain text.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from easyds_tune.data.files import locate
from easyds_tune.data.records import assistant, user
from easyds_tune.errors import SpecError

NO_TEMPLATE = "none"
EXPORTED_KEY = "easyds_chat_template"
"""A key of tokenizer_config.json. `none` there: this model was trained on plain text, whatever
family its vocabulary looks like."""

PLAIN = "plain text with each message on a line of its own"
"""What a model without a chat template is trained on and reads."""

# A family is known by the tokens its template writes: (file name in TRL, tokens it needs).
_TRL_FAMILIES = (
    ("qwen2_5", ("<|im_start|>", "<|im_end|>")),
    ("llama3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    ("gemma", ("<start_of_turn>", "<end_of_turn>")),
    ("glm4moe", ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>")),
    ("phi3", ("<|user|>", "<|assistant|>", "<|end|>")),
)


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template's Jinja text, None for plain-text continuation, and where it came from."""

    text: str | None
    source: Literal["spec", "tokenizer", "trl", "none"]

    @property
    def in_words(self) -> str:
        """Where it comes from, for plan and model card."""
        return {
            "spec": "the one of data.chat_template",
            "tokenizer": "the tokenizer's own",
            "trl": "TRL's for the model's family, known by its special tokens",
            "none": f"none, {PLAIN}",
        }[self.source]


def choose_template(
    tokenizer: Any, chat_template: str | None, folder: Path | None = None
) -> Template:
    """The template to use with `tokenizer`; `chat_template` is the spec's field.

    Raises SpecError where the spec's file is missing or a template cannot render a chat.
    """
    template = _choose(tokenizer, chat_template, folder)
    if template.text is not None:
        _check_renders(tokenizer, template)
    return template


def template_notes(template: Template, chat_template: str | None) -> list[str]:
    """What a sweep says where neither the spec nor the tokenizer has a template."""
    if chat_template is not None or template.source == "tokenizer":
        return []
    used = PLAIN if template.text is None else template.in_words
    return [
        f"model.model_name_or_path: has no chat template; training, judge and export use {used}; "
        "give one in data.chat_template"
    ]


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a model's files tell of its tokenizer, without loading it: for `plan`."""

    chat_template: str | dict[str, str] | None
    init_kwargs: dict[str, Any]
    special: frozenset[str]
    """Added tokens; a family is known by these."""
    ends: tuple[str, ...]
    """BOS and EOS."""

    def get_vocab(self) -> frozenset[str]:
        """As much of the vocabulary as `choose_template` asks for."""
        return self.special

    def template(self, chat_template: str | None, folder: Path | None = None) -> Template:
        """What `choose_template` will find with the tokenizer itself."""
        return _choose(self, chat_template, folder)


def read_tokenizer_files(model: Path) -> TokenizerFiles | None:
    """The tokenizer of a local folder; None for a hub name, or where its files cannot be read."""
    try:
        config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        own = config.get("chat_template")
        if isinstance(own, list):
            own = {entry["name"]: entry["template"] for entry in own}
        if (model / "chat_template.jinja").is_file():
            own = (model / "chat_template.jinja").read_text(encoding="utf-8")
        added = list(config.get("added_tokens_decoder", {}).values())
        if (model / "tokenizer.json").is_file():
            tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
            added += tokenizer["added_tokens"]
        special = frozenset(token["content"] for token in added)
        ends = [config.get(name) for name in ("bos_token", "eos_token")]
        texts = [end["content"] if isinstance(end, dict) else end for end in ends if end]
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return TokenizerFiles(own, config, special, tuple(texts))


def set_template(tokenizer: Any, template: Template) -> None:
    """Make `choose_template(tokenizer, None)` choose this text, also once it is saved and loaded.

    A tokenizer whose own template it is stays as it is, with its templates for other uses.
    """
    if template.source == "tokenizer":
        return
    tokenizer.chat_template = template.text
    tokenizer.init_kwargs.pop(EXPORTED_KEY, None)
    if template.text is None:
        tokenizer.init_kwargs[EXPORTED_KEY] = NO_TEMPLATE


def _choose(tokenizer: Any, chat_template: str | None, folder: Path | None) -> Template:
    if chat_template == NO_TEMPLATE:
        return Template(None, "none")
    if chat_template is not None:
        return Template(_written(chat_template, folder), "spec")
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own:
        return Template(own, "tokenizer")
    if tokenizer.init_kwargs.get(EXPORTED_KEY) == NO_TEMPLATE:
        return Template(None, "none")
    if (known := _trl_template(set(tokenizer.get_vocab()))) is not None:
        return Template(known, "trl")
    return Template(None, "none")


def template_file(chat_template: str, folder: Path | None = None) -> Path | None:
    """The file that the spec's `chat_template` names; None where it is none, or Jinja text."""
    if chat_template == NO_TEMPLATE or "{{" in chat_template or "{%" in chat_template:
        return None
    return locate(chat_template, folder)


def _written(chat_template: str, folder: Path | None) -> str:
    """The spec's template: Jinja text as it stands, or the content of the file it names."""
    path = template_file(chat_template, folder)
    if path is None:
        return chat_template
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SpecError(
            [
                "data.chat_template must be Jinja text, a readable file or "
                f"{NO_TEMPLATE!r}, got {chat_template!r:.200} ({error!s:.300})"
            ]
        ) from error


def _trl_template(vocabulary: set[str]) -> str | None:
    # Found without importing TRL, which would load torch.
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    for name, tokens in _TRL_FAMILIES:
        if vocabulary.issuperset(tokens):
            return (folder / f"{name}.jinja").read_text(encoding="utf-8")
    return None


def _check_renders(tokenizer: Any, template: Template) -> None:
    try:
        text = tokenizer.apply_chat_template(
            [user("question"), assistant("answer")], chat_template=template.text, tokenize=False
        )
        text.encode()  # no tokenizer takes half a surrogate pair
    # A template may fail by Jinja's errors, or by those of whatever it computes.
    except Exception as error:
        raise SpecError(
            [
                f"data.chat_template (from {template.source}) cannot render a chat: "
                f"{type(error).__name__}: {error!s:.300}"
            ]
        ) from error
    if "question" not in text or "answer" not in text:
        raise SpecError(
            [
                f"data.chat_template (from {template.source}) must write every message's content, "
                f"and rendered a question and an answer as {text!r:.80}"
            ]
        )
