"""Messages out of a record's fields: role/content and from/value, typed parts, structs of lists.

What a chat cannot carry here is left out and counted: tool calls, thoughts kept beside a reply,
images, video and audio. A key that masks a turn (`weight: 0`, `loss: false`, …) is kept with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from easyds_tune.data.columns import Columns, Dirty, Fields, Malformed, is_empty, named, shape
from easyds_tune.data.records import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "系统": "system",
    "用户": "user",
    "助手": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "tool_response": "tool",
}
CALL_ROLES = ("function_call", "tool_call")
MASKS = (
    "weight",
    "loss",
    "loss_mask",
    "loss_weight",
    "loss_scale",
    "trainable",
    "train",
    "training",
)
"""Keys of a message that say whether its turn is trained: OpenAI, Mistral, LLaMA-Factory, ms-swift,
verl, axolotl."""
MASK_LISTS = (*MASKS, "weights", "loss_masks", "loss_weights")
"""Columns that, as a list beside the messages, have a mask for each of them."""
_UNCLEAR_MASKS = ("mask", "masked", "train_detail", "training_detail")
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

TOOLS = "tool definitions are not supported"
TOOL_CALLS = "tool calls are not supported"
THOUGHTS = "thoughts beside the reply are not supported; write them into the reply"
MEDIA = "images, video and audio are not supported"
_TOOL_KEYS = ("tools", "functions")
_CALL_KEYS = ("tool_calls", "function_call")
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_MEDIA_KEYS = ("image", "images", "video", "videos", "audio", "audios")
_UNSUPPORTED_COLUMNS = (
    (_TOOL_KEYS, TOOLS),
    (_CALL_KEYS, TOOL_CALLS),
    (("reasoning_content",), THOUGHTS),
    (_MEDIA_KEYS, MEDIA),
)
_UNSUPPORTED_KEYS = (
    (_TOOL_KEYS, TOOLS),
    (_CALL_KEYS, TOOL_CALLS),
    (_THOUGHT_KEYS, THOUGHTS),
    (_MEDIA_KEYS, MEDIA),
)
_UNSUPPORTED_PARTS = (
    (re.compile(r"(input_)?(image|video|audio)(_url)?|file|document"), MEDIA),
    (re.compile(r"tool_(use|result|call)|function_call"), TOOL_CALLS),
    (re.compile(r"(redacted_)?thinking|reasoning"), THOUGHTS),
)
_MARK = (
    r"(?:<(?:image([ _-]?\d+)?|img|video|audio|speech|imagehere|start_of_image|image_soft_token)>"
    r"|<\|(?:image|img|video|audio|vision)\w*\|>|\[IMG\])"
)
# A question may be about <image> or <video> as HTML, so only where placeholders stand: at an edge
# of a turn, or on a line of their own.
PLACEHOLDER = re.compile(
    rf"\A\s*{_MARK}|{_MARK}\s*\Z|^[ \t]*{_MARK}[ \t]*$|<img>[^<>\s]+</img>",
    re.IGNORECASE | re.MULTILINE,
)


def role_of(role: object) -> str | None:
    """The role that a name stands for, in whatever case; None for any other value."""
    return ROLES.get(role.strip().lower()) if isinstance(role, str) else None


class Turn(NamedTuple):
    """One message, and whether it is read but not trained on."""

    role: str
    content: str
    masked: bool = False

    @property
    def message(self) -> Message:
        """The message alone."""
        return {"role": self.role, "content": self.content}


def reject_unsupported(fields: Fields) -> None:
    """Raise Dirty for columns that a model would need and no template here passes on."""
    for names, reason in _UNSUPPORTED_COLUMNS:
        for name in names:
            if fields.has(name) and not _says_nothing(fields.get(name)):
                raise Dirty(reason)


def reject_masked(fields: Fields) -> None:
    """Raise Dirty for a record that a column such as `weight: 0` or `train: false` leaves out."""
    for key in MASKS:
        value = fields.columns.get(key)
        if is_empty(value) or isinstance(value, list):
            continue
        fields.get(key)
        try:
            trained = _flag(value, key)
        except Malformed as error:
            raise Malformed(
                f"{error}; if it is no weight of the record, rename the column with `columns`"
            ) from error
        if not trained:
            raise Dirty(f"the record's {key} is 0 or false")


def turns(fields: Fields, name: str, text_role: str | None = None) -> list[Turn]:
    """The messages of a column: a list of them, one alone, lists of roles and contents, or text.

    Args:
        text_role: Role of a text; None where the column must hold messages.
    """
    fields.require(name)
    value = fields.get(name)
    if isinstance(value, str) and text_role is not None:
        return [Turn(text_role, value)]
    if isinstance(value, dict):
        value = _messages_of_lists(value, name, fields) or [value]
    if not isinstance(value, list):
        text = "text or " if text_role is not None else ""
        raise Malformed(f"{name} must be {text}a list of messages, got {shape(value)}")
    return [_turn(item, f"{name}[{n}]", name, fields) for n, item in enumerate(value)]


def masked_by_list(fields: Fields, chat: list[Turn]) -> list[Turn]:
    """The chat with the masks of a list beside it, such as `loss_mask: [0, 1]`."""
    for key in MASK_LISTS:
        flags = fields.columns.get(key)
        if not isinstance(flags, list):
            continue
        fields.get(key)
        if len(flags) != len(chat):
            raise Malformed(
                f"{key} must have one entry for each of the {len(chat)} messages, got {len(flags)};"
                " write `weight: 0` on the messages that are not trained"
            )
        trained = [_flag(flag, f"{key}[{n}]") for n, flag in enumerate(flags)]
        chat = [
            turn._replace(masked=turn.masked or (turn.role == "assistant" and not flag))
            for turn, flag in zip(chat, trained, strict=True)
        ]
    return chat


def is_message(item: object) -> bool:
    """Whether a value is a message of a known role."""
    if not isinstance(item, dict):
        return False
    role_key, content_key = _keys(item)
    role = item.get(role_key)
    content = item.get(content_key)
    known = role_of(role) is not None or (isinstance(role, str) and role in CALL_ROLES)
    return known and (is_empty(content) or isinstance(content, str | list))


def holds_messages(value: Columns | list[object]) -> bool:
    """Whether a value is messages, in any of the ways that `turns` reads."""
    if isinstance(value, dict):
        return is_message(value) or isinstance(value.get(_keys(value)[0]), list)
    return bool(value) and all(map(is_message, value))


def _messages_of_lists(value: Columns, name: str, fields: Fields) -> list[Columns] | None:
    """Messages out of `{"role": [...], "content": [...]}`, as Parquet holds a sequence of them."""
    lists = {key: item for key, item in value.items() if isinstance(item, list)}
    if not {*_keys(value)} <= lists.keys():
        return None
    for key in value.keys() - lists.keys():
        if not is_empty(value[key]):
            fields.leave(f"{name}.{key}")
    lengths = {len(item) for item in lists.values()}
    if len(lengths) > 1:
        raise Malformed(f"the lists of {name} must have one length, got {sorted(lengths)}")
    return [{key: item[n] for key, item in lists.items()} for n in range(max(lengths))]


def _keys(item: Columns) -> tuple[str, str]:
    return ("from", "value") if item.get("from") is not None else ("role", "content")


def _turn(item: object, where: str, name: str, fields: Fields) -> Turn:
    if not isinstance(item, dict):
        raise Malformed(f"{where} must be a message, got {shape(item)}")
    role_key, content_key = _keys(item)
    role = item.get(role_key)
    for keys, reason in _UNSUPPORTED_KEYS:
        if not all(_says_nothing(item.get(key)) for key in keys):
            raise Dirty(reason)
    if role in CALL_ROLES:
        raise Dirty(TOOL_CALLS)
    speaker = role_of(role)
    if speaker is None:
        raise Malformed(
            f"{where}.{role_key} must be one of {', '.join(ROLES)}, got {shape(role)}; write "
            "`user`, `assistant` or `system` in its place"
        )
    if content_key not in item:
        raise Malformed(f"{where} needs the key {content_key!r}, has {named(item)}")
    turn = Turn(speaker, _content(item[content_key], f"{where}.{content_key}", name, fields))
    known = {role_key, content_key, *MASKS}.union(*(keys for keys, _ in _UNSUPPORTED_KEYS))
    for key, value in item.items():
        if key not in known and not is_empty(value):
            fields.leave(f"{name}[].{key}")
    return turn._replace(masked=_is_masked(item, where, turn.role, name, fields))


def _is_masked(item: Columns, where: str, role: str, name: str, fields: Fields) -> bool:
    """Whether a mask excludes an assistant's turn; a mask that trains another turn is not used."""
    for key in _UNCLEAR_MASKS:
        if not is_empty(item.get(key)):
            raise Malformed(
                f"{where}.{key} is not read, since it may mean either; write `weight: 0` on a "
                "message that is not trained"
            )
    flags = {
        key: _flag(item[key], f"{where}.{key}") for key in MASKS if not is_empty(item.get(key))
    }
    if role != "assistant":
        for key in (key for key, trained in flags.items() if trained):
            fields.leave(f"{name}[].{key} of {role} messages")
        return False
    if len(set(flags.values())) > 1:
        raise Malformed(f"{where} must not be both trained and masked: {named(flags)}; keep one")
    return bool(flags) and not any(flags.values())


def _flag(value: object, where: str) -> bool:
    """A mask's value, True where the turn is trained."""
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise Malformed(
        f"{where} must be 0 or 1 (false or true), since it is trained or not, got "
        f"{shape(value)}; round it, or remove the key"
    )


def _content(value: object, where: str, name: str, fields: Fields) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = enumerate(value)
        return "".join(_part(part, f"{where}[{n}]", name, fields) for n, part in parts)
    raise Malformed(f"{where} must be text, got {shape(value)}")


def _part(part: object, where: str, name: str, fields: Fields) -> str:
    """One typed part of a content; TRL writes its text under `text`, others under `value`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and isinstance(kind, str):
        for pattern, reason in _UNSUPPORTED_PARTS:
            if pattern.fullmatch(kind):
                raise Dirty(reason)
        key = "text" if part.get("text") is not None else "value"
        if kind in ("text", "input_text", "output_text") and isinstance(part.get(key), str):
            for other in part.keys() - {"type", key}:
                if not is_empty(part[other]):
                    fields.leave(f"{name}[].content[].{other}")
            return str(part[key])
    raise Malformed(f"{where} must be a text part, got {shape(part)}")


def _says_nothing(value: object) -> bool:
    """Whether a value is empty, or an empty list written as text."""
    return is_empty(value) or value in ("[]", "{}", "null", "None") or value is False
