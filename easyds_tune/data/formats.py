"""Record formats: each one's way from a record's columns to the richest record they hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from easyds_tune.data.columns import Dirty, Fields, Malformed, is_empty, shape
from easyds_tune.data.kinds import EMPTY_REPLY, NO_REPLY
from easyds_tune.data.marks import EASYDS_TURN, HH_TURN, dialogue
from easyds_tune.data.messages import Turn, masked_by_list, reject_masked, reject_unsupported, turns
from easyds_tune.data.records import (
    Conversation,
    Kind,
    Message,
    PlainText,
    PreferencePair,
    Prompt,
    Record,
    user,
)

PROMPTS_DIFFER = "chosen and rejected answer different prompts"
TWO_SYSTEMS = "two different system prompts"
ENDS_WITH_REPLY = "the prompt ends with the assistant's turn"
NO_TEXT = Turn("assistant", "")
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")


def convert(fields: Fields, layout: str, kind: Kind) -> Record:
    """One record by its format, with the columns that every format shares: system and margin.

    Raises:
        Malformed: The record is not of this format.
        Dirty: It is of no use, for a reason that is counted.
    """
    reject_unsupported(fields)
    if kind != "prompts":
        reject_masked(fields)
    record = _CONVERTERS[layout](fields)
    if not isinstance(record, PlainText):
        record = _with_system(record, fields)
    if kind == "preferences" and isinstance(record, PreferencePair):
        record = replace(record, margin=_margin(fields))
    return record


def _with_system(record: Record, fields: Fields) -> Record:
    """The record with the system prompt of a column in front; two that differ are too many."""
    found = [fields.string(name) for name in SYSTEM_COLUMNS if not is_empty(fields.get(name))]
    if not found:
        return record
    message = {"role": "system", "content": found[0]}
    match record:
        case PreferencePair(prompt):
            chat = prompt
        case Conversation(messages) | Prompt(messages):
            chat = messages
    if chat and chat[0]["role"] == "system" and not is_empty(chat[0]["content"]):
        found.append(chat[0]["content"])
        message = chat[0]
    if len({text.strip() for text in found}) > 1:
        raise Dirty(TWO_SYSTEMS)
    if chat and chat[0]["role"] == "system":
        chat = chat[1:]
    else:
        record = _shifted(record)
    chat = (message, *chat)
    match record:
        case PreferencePair():
            return replace(record, prompt=chat)
        case _:
            return replace(record, messages=chat)


def _shifted(record: Record) -> Record:
    if isinstance(record, Conversation):
        return replace(record, context=tuple(n + 1 for n in record.context))
    return record


def _margin(fields: Fields) -> float | None:
    """How much better the chosen reply is; a number, or a number's text as CSV holds it."""
    value = fields.get("margin")
    if is_empty(value):
        return None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = float("nan")
        if abs(number) < float("inf"):
            return number
    raise Malformed(f"margin must be a finite number, got {shape(value)}")


def _chat(chat: list[Turn]) -> Conversation | Prompt:
    """Messages up to the assistant's last turn, or those that wait for it."""
    messages = tuple(turn.message for turn in chat)
    if chat and chat[-1].role == "assistant":
        return Conversation(messages, tuple(n for n, turn in enumerate(chat) if turn.masked))
    return Prompt(messages)


def _answered(prompt: list[Turn], answer: list[Turn]) -> Conversation | Prompt:
    if prompt and answer and prompt[-1].role == answer[0].role == "assistant":
        raise Dirty(ENDS_WITH_REPLY)
    return _chat(_joined(prompt, answer))


def _joined(prompt: list[Turn], dialogue: list[Turn]) -> list[Turn]:
    """The prompt and then the dialogue, which may repeat the prompt's turns itself."""
    opening = [turn for turn in (*prompt[:1], *dialogue[:1]) if turn.role == "system"]
    if len({turn.content.strip() for turn in opening if turn.content.strip()}) > 1:
        raise Dirty(TWO_SYSTEMS)
    opening = sorted(opening, key=lambda turn: not turn.content.strip())[:1]
    asked, said = _without_system(prompt), _without_system(dialogue)
    if _holds(said, asked):
        return [*opening, *said]
    if said and asked[-1].role == said[0].role == "user":
        raise Dirty("the prompt differs from the dialogue's beginning")
    return [*opening, *asked, *said]


def _without_system(chat: list[Turn]) -> list[Turn]:
    return chat[1:] if chat and chat[0].role == "system" else chat


def _holds(dialogue: list[Turn], prompt: list[Turn]) -> bool:
    """Whether a dialogue has the turns of a prompt among its own, at its beginning or later."""
    said, asked = (
        [(turn.role, turn.content.strip()) for turn in chat] for chat in (dialogue, prompt)
    )
    starts = range(len(said) - len(asked) + 1)
    if asked and said and asked[0][0] != said[0][0]:
        return False
    return any(said[n : n + len(asked)] == asked for n in starts) or not asked


def _pair(prompt: list[Turn], chosen: list[Turn], rejected: list[Turn]) -> PreferencePair:
    """A pair from its prompt and two sides that share all turns but the last."""
    for side in (chosen, rejected):
        if not side or side[-1].role != "assistant":
            raise Dirty(NO_REPLY)
    if chosen[:-1] != rejected[:-1]:
        raise Dirty(EMPTY_REPLY if [NO_TEXT] in (chosen, rejected) else PROMPTS_DIFFER)
    if chosen[-1].masked or rejected[-1].masked:
        raise Dirty("the reply of a pair is masked")
    asked = _joined(prompt, chosen[:-1])
    if asked and asked[-1].role == "assistant":
        raise Dirty(ENDS_WITH_REPLY)
    messages = tuple(turn.message for turn in asked)
    return PreferencePair(messages, chosen[-1].content, rejected[-1].content)


def _has_pair(fields: Fields) -> bool:
    return fields.has("chosen") and fields.has("rejected")


def _may_have_pair(fields: Fields) -> bool:
    """Whether the columns of a pair are there, one or both of them null."""
    return {"chosen", "rejected"} <= fields.columns.keys()


def _prompt(fields: Fields, name: str = "prompt") -> list[Turn]:
    return [*_history(fields), *turns(fields, name, "user")]


def _reply(fields: Fields, name: str) -> list[Turn]:
    return turns(fields, name, "assistant") if fields.reply(name) != "" else [NO_TEXT]


def _from_messages(fields: Fields) -> Record:
    return _chat(masked_by_list(fields, turns(fields, "messages")))


def _from_prompt_completion(fields: Fields) -> Record:
    return _answered(_prompt(fields), _reply(fields, "completion"))


def _from_preference(fields: Fields) -> Record:
    """TRL's pairs: an explicit prompt, turns that open both sides, or both."""
    prompt = _history(fields) if is_empty(fields.get("prompt")) else _prompt(fields)
    return _pair(prompt, _reply(fields, "chosen"), _reply(fields, "rejected"))


def _from_prompt(fields: Fields) -> Record:
    return _chat(_prompt(fields))


def _from_text(fields: Fields) -> Record:
    return PlainText(fields.string("text"))


def _from_alpaca(fields: Fields) -> Record:
    """Instruction and input on two lines; `output` may also be a list of replies, best first."""
    instruction, extra = fields.string("instruction"), fields.optional_string("input")
    question = f"{instruction}\n{extra}" if extra else instruction
    prompt = [*_history(fields), Turn("user", question)]
    if _has_pair(fields) or (is_empty(fields.columns.get("output")) and _may_have_pair(fields)):
        return _pair(prompt, _reply(fields, "chosen"), _reply(fields, "rejected"))
    ranked = fields.get("output")
    if isinstance(ranked, list):
        return _ranked(fields, prompt, ranked)
    return _chat([*prompt, Turn("assistant", fields.reply_string("output"))])


def _ranked(fields: Fields, prompt: list[Turn], replies: list[object]) -> PreferencePair:
    """The best and the worst of several replies; those between are counted as not used."""
    texts = [reply for reply in replies if isinstance(reply, str)]
    if len(texts) < len(replies):
        raise Malformed("output must be text or a list of texts, best first")
    if len(texts) < 2:
        raise Dirty("fewer than two ranked replies")
    for _ in texts[1:-1]:
        fields.leave("output[] between the best and the worst")
    return PreferencePair(tuple(turn.message for turn in prompt), texts[0], texts[-1])


def _history(fields: Fields) -> list[Turn]:
    """Earlier turns as pairs of user's and assistant's texts, in whatever format."""
    history = fields.get("history")
    if is_empty(history):
        return []
    if not isinstance(history, list):
        raise Malformed(
            f"history must be a list of [user, assistant], got {shape(history)}; write such a "
            "list, or rename the column with `columns`"
        )
    chat: list[Turn] = []
    for turn in history:
        match turn:
            case [str(question), str(answer)]:
                chat += [Turn("user", question), Turn("assistant", answer)]
            case _:
                raise Malformed(f"history must hold [user, assistant] texts, got {shape(turn)}")
    return chat


def _from_sharegpt(fields: Fields) -> Record:
    chat = masked_by_list(fields, turns(fields, "conversations"))
    waits = not chat or chat[-1].role != "assistant"
    if _has_pair(fields) or (waits and _may_have_pair(fields)):
        return _pair(chat, _reply(fields, "chosen"), _reply(fields, "rejected"))
    return _chat(chat)


def _from_hh(fields: Fields) -> Record:
    """Two whole dialogues that part at the last `Assistant:`."""
    sides = [_dialogue(fields, name, HH_TURN) for name in ("chosen", "rejected")]
    return _parted(*sides)


def _from_easyds_reward(fields: Fields) -> Record:
    """Two texts that open with the prompt, `用户: …` and then `助手: …`; `grade` is kept apart."""
    sides = [
        dialogue(fields.reply_string(name), EASYDS_TURN, name) for name in ("chosen", "rejected")
    ]
    fields.get("grade")
    return _parted(*sides)


def _dialogue(fields: Fields, name: str, mark: re.Pattern[str]) -> tuple[list[Message], str]:
    return dialogue(fields.reply_string(name), mark, name)


def _parted(chosen: tuple[list[Message], str], rejected: tuple[list[Message], str]) -> Record:
    if any(prompt and prompt[-1]["role"] == "assistant" for prompt, _ in (chosen, rejected)):
        raise Dirty(ENDS_WITH_REPLY)
    if chosen[0] != rejected[0]:
        raise Dirty(PROMPTS_DIFFER)
    return PreferencePair(tuple(chosen[0]), chosen[1], rejected[1])


def _from_cvalues(fields: Fields) -> Record:
    chosen, rejected = fields.reply_string("pos_resp"), fields.reply_string("neg_resp")
    return PreferencePair((user(fields.string("prompt")),), chosen, rejected)


def _from_easyds_sft(fields: Fields) -> Record:
    return _answered(_prompt(fields, "input"), _reply(fields, "output"))


def _from_easyds_ppo(fields: Fields) -> Record:
    return _chat(_prompt(fields, "input"))


_CONVERTERS: dict[str, Callable[[Fields], Record]] = {
    "messages": _from_messages,
    "prompt-completion": _from_prompt_completion,
    "preference": _from_preference,
    "prompt": _from_prompt,
    "text": _from_text,
    "alpaca": _from_alpaca,
    "sharegpt": _from_sharegpt,
    "hh": _from_hh,
    "cvalues": _from_cvalues,
    "easyds-sft": _from_easyds_sft,
    "easyds-reward": _from_easyds_reward,
    "easyds-ppo": _from_easyds_ppo,
}
