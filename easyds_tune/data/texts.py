"""Which texts of a file hold messages: as JSON, as a Python repr, or as a marked-up dialogue.

Text stays text unless the whole column says otherwise:

- `messages` and `conversations` hold messages, `history` and masks beside them hold lists, so a
  text there is parsed.
- `prompt` and `input` are parsed where every text of the column is messages; where only some are,
  or one opens like a list of messages and is broken, the file is refused. A dialogue of `Human:`
  and `Assistant:` marks (`用户:`, `助手:`) is parsed text by text.
- `chosen` and `rejected` are parsed where every text is a list of one assistant message, a dialogue
  (also a marked one) that opens with its row's prompt, or, in a file without prompts, a dialogue.
- `completion` and `output` are parsed where every text is a list of one assistant message, or one
  alone or a dialogue that opens with the prompt beside a prompt that was itself parsed.
- Any other JSON in a reply is the reply. Beside `instruction`, `input` and `output` are text.

A format that the spec names overrules all of this but the first, and pairs without a prompt.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable

from easyds_tune.data.columns import Columns, Row, is_empty
from easyds_tune.data.marks import looks_marked, marked_turns
from easyds_tune.data.messages import MASK_LISTS, is_message, role_of
from easyds_tune.errors import DataError

LIST_COLUMNS = ("history", *MASK_LISTS)
CHAT_COLUMNS = ("messages", "conversations")
PROMPT_COLUMNS = ("prompt", "input")
REPLY_COLUMNS = (("chosen", "rejected"), ("completion",), ("output",))
EASYDS_FORMATS = ("easyds-sft", "easyds-ppo")

_OPENING = re.compile(r"""\s*\[\s*\{\s*(['"])(role|content|from|value)\1\s*:""")
_PYTHON = re.compile(r"""\s*(\[\s*)?[\[{]\s*['"\d]""")
_LITERAL = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_UNPARSED = (
    "{column} opens like messages in JSON or Python, and cannot be parsed; repair it, or name "
    "`format:` (such as prompt-completion) to read the column as text"
)

Messages = list[Columns]


def parse_messages(text: str) -> Messages | None:
    """A list of messages, or one alone, out of JSON or a Python repr; None for any other text.

    numpy's repr of an array has no commas between its items; they are put in.
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    value = _literal(text)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(map(is_message, value)):
        return value
    return None


def opens_like_messages(text: str) -> bool:
    """Whether a text begins as a list of messages does, whole or not."""
    return _OPENING.match(text) is not None


def parse_texts(rows: list[Row], layout: str) -> tuple[list[Row], list[str]]:
    """Rows with messages in place of the texts that hold them, and notes of what was parsed or not.

    Args:
        layout: The spec's format; other than auto it says that prompts and replies are text.
    Raises:
        DataError: A column is neither messages throughout nor text throughout.
    """
    before = [row.columns for row in rows]
    columns = [dict(row) for row in before]
    problems: list[str] = []
    notes: list[str] = []
    for name in CHAT_COLUMNS:
        _replace(columns, name, lambda text: parse_messages(text) or text)
    for name in LIST_COLUMNS:
        _replace(columns, name, lambda text: _literal(text) if text.startswith("[") else text)
    alpaca = any(not is_empty(row.get("instruction")) for row in columns)
    for name in PROMPT_COLUMNS[:1] if alpaca else PROMPT_COLUMNS:
        if layout == "auto" or layout in EASYDS_FORMATS:
            problems += _parse_prompts(rows, columns, name)
        if layout == "auto":
            notes += _parse_marks(columns, name)
    for name in (*PROMPT_COLUMNS, "instruction"):
        notes += _kept_prompts(columns, name)
    for names in REPLY_COLUMNS[:2] if alpaca else REPLY_COLUMNS:
        if layout in ("auto", *EASYDS_FORMATS) or not _has_prompt(before):
            problems += _parse_replies(rows, before, columns, names)
        notes += _kept_replies(columns, names)
    if problems:
        raise DataError(problems)
    return [Row(row.where, found) for row, found in zip(rows, columns, strict=True)], notes


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not _PYTHON.match(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a text with a stray backslash is no warning of ours
            return ast.literal_eval(_with_commas(text.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _with_commas(text: str) -> str:
    pieces = _LITERAL.split(text)
    pieces[::2] = [re.sub(r"\}(\s*)\{", r"},\1{", piece) for piece in pieces[::2]]
    return "".join(pieces)


def _texts(columns: list[Columns], name: str) -> list[tuple[int, str]]:
    found = [(n, row.get(name)) for n, row in enumerate(columns)]
    return [(n, text) for n, text in found if isinstance(text, str) and text.strip()]


def _replace(columns: list[Columns], name: str, parse: Callable[[str], object]) -> None:
    for n, text in _texts(columns, name):
        columns[n][name] = parse(text)


def _parse_prompts(rows: list[Row], columns: list[Columns], name: str) -> list[str]:
    """Parse a column of prompts in place where all of its texts are messages; problems if mixed."""
    texts = _texts(columns, name)
    parsed = {n: found for n, text in texts if (found := parse_messages(text)) is not None}
    broken = [
        f"{rows[n].where}: " + _UNPARSED.format(column=name)
        for n, text in texts
        if n not in parsed and opens_like_messages(text) and _literal(text) is None
    ]
    if broken:
        return broken
    if 0 < len(parsed) < len(texts):
        other = next(n for n, _ in texts if n not in parsed)
        return [
            f"{rows[other].where}: {name} is no list of messages, as {len(parsed)} of the column's "
            f"{len(texts)} texts are; repair it, or name `format:` (such as prompt-completion) to "
            "read all of them as text"
        ]
    for n, found in parsed.items():
        columns[n][name] = found
    return []


def _parse_marks(columns: list[Columns], name: str) -> list[str]:
    """Parse marked-up dialogues in place, and take the mark's blank off the row's replies."""
    count = 0
    for n, text in _texts(columns, name):
        chat = marked_turns(text)
        if chat is None:
            continue
        count += 1
        columns[n][name] = chat
        for reply in (reply for names in REPLY_COLUMNS for reply in names):
            value = columns[n].get(reply)
            if isinstance(value, str):
                columns[n][reply] = value.strip()
    marks = "`Human:` and `Assistant:` (or `用户:` and `助手:`)"
    return [f"{name}: {count} texts with {marks} read as turns"] if count else []


def _kept_prompts(columns: list[Columns], name: str) -> list[str]:
    """A note where texts look like a chat and stay text."""
    texts = [text for _, text in _texts(columns, name)]
    chats = sum(parse_messages(text) is not None or opens_like_messages(text) for text in texts)
    marked = sum(map(looks_marked, texts))
    notes = [f"{name}: {chats} texts look like messages and are read as text"] if chats else []
    if marked:
        notes.append(f"{name}: {marked} texts with marked turns (`Human:`) are read as one text")
    return notes


def _kept_replies(columns: list[Columns], names: tuple[str, ...]) -> list[str]:
    """A note where replies are lists in JSON or Python, of messages or not, and stay text."""
    notes = []
    for name in names:
        texts = [text for _, text in _texts(columns, name) if text.lstrip()[:1] in ("[", "{")]
        chats = sum(parse_messages(text) is not None for text in texts)
        lists = sum(isinstance(_literal(text), list) for text in texts if text.lstrip()[0] == "[")
        what = "messages" if chats else "lists"
        if count := max(chats, lists):
            notes.append(f"{name}: {count} texts are {what} in JSON or Python and are read as text")
    return notes


def _has_prompt(columns: list[Columns]) -> bool:
    return any(_prompt_column(row) is not None for row in columns)


def _prompt_column(row: Columns) -> str | None:
    names = ("prompt", "instruction", "input", *CHAT_COLUMNS)
    return next((name for name in names if not is_empty(row.get(name))), None)


def _parse_replies(
    rows: list[Row], before: list[Columns], columns: list[Columns], names: tuple[str, ...]
) -> list[str]:
    """Parse reply columns in place where all of their texts are messages by the module's rule."""
    texts = [(n, name, text) for name in names for n, text in _texts(columns, name)]
    alone, of_pair = not _has_prompt(before), len(names) == 2
    parsed: dict[tuple[int, str], Messages] = {}
    for n, name, text in texts:
        chat = parse_messages(text) or (marked_turns(text) if of_pair and not alone else None)
        if chat and _role(chat[-1]) == "assistant":
            lone = len(chat) == 1 and text.lstrip().startswith("[")
            if alone or lone or _answers(chat, before[n], columns[n], of_pair):
                parsed[n, name] = chat
    if len(parsed) == len(texts):
        for (n, name), chat in parsed.items():
            columns[n][name] = chat
        return []
    left = [(n, name, text) for n, name, text in texts if (n, name) not in parsed]
    broken = [key for key in left if opens_like_messages(key[2]) and _literal(key[2]) is None]
    if len(broken) == len(texts):
        return [f"{rows[n].where}: " + _UNPARSED.format(column=name) for n, name, _ in broken]
    return [
        f"{rows[n].where}: {name} is no list of messages that answers its prompt, as "
        f"{len(parsed)} of {len(texts)} texts are; repair it, or name `format:` (such as "
        "prompt-completion) to read all of them as text"
        for n, name, _ in left
        if parsed
    ]


def _answers(chat: Messages, before: Columns, row: Columns, of_pair: bool) -> bool:
    """Whether messages in a reply's column answer their row's prompt."""
    name = _prompt_column(row)
    prompt = row[name] if name else None
    parsed = name is not None and isinstance(prompt, list) and isinstance(before[name], str)
    if len(chat) == 1:
        return parsed
    opening = [(_role(message), _text(message)) for message in chat[:-1]]
    if of_pair and isinstance(prompt, str):
        return prompt.strip() in {content for role, content in opening if role == "user"}
    if isinstance(prompt, list) and all(map(is_message, prompt)) and (of_pair or parsed):
        return opening[-len(prompt) :] == [(_role(item), _text(item)) for item in prompt]
    return False


def _role(message: Columns) -> str:
    role = message.get("from") or message.get("role")
    return role_of(role) or ""


def _text(message: Columns) -> object:
    content = message.get("value") if message.get("from") else message.get("content")
    return content.strip() if isinstance(content, str) else content
