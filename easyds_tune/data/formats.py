"""Record formats: which one a row has, and each one's way to a record.

A converter takes one row's columns and gives the richest record they hold.
"""

from __future__ import annotations

from collections.abc import Callable

from easyds_tune.data.messages import (
    EASYDS_TURN,
    HH_TURN,
    Columns,
    Dirty,
    Malformed,
    dialogue,
    messages,
    named,
    optional_string,
    reply,
    shape,
    string,
)
from easyds_tune.data.records import (
    Conversation,
    Message,
    PlainText,
    PreferencePair,
    Prompt,
    Record,
    assistant,
    user,
)

PROMPTS_DIFFER = "chosen and rejected answer different prompts"


def recognise(columns: Columns) -> str:
    """The format of a row by its columns and values; raises Malformed where none fits."""
    names = set(columns)
    if isinstance(columns.get("label"), bool) and names & {"messages", "completion"}:
        raise Malformed(
            "this is KTO data (one reply with a good/bad label), which no algorithm here trains "
            "on; give preference pairs, or name `format: messages` or `prompt-completion` to "
            "imitate every reply, bad ones too"
        )
    if {"pos_resp", "neg_resp"} <= names:
        return "cvalues"
    if {"chosen", "rejected"} <= names:
        return _recognise_pair(columns)
    for needed, name in (
        ({"instruction", "output"}, "alpaca"),
        ({"conversations"}, "sharegpt"),
        ({"messages"}, "messages"),
        ({"prompt", "completion"}, "prompt-completion"),
        ({"input", "output"}, "easyds-sft"),
        ({"input"}, "easyds-ppo"),
        ({"prompt"}, "prompt"),
        ({"text"}, "text"),
    ):
        if needed <= names:
            return name
    raise Malformed(
        f"the columns {named(columns)} fit no known format; name them with "
        "`columns`, e.g. {question: prompt, answer: completion}"
    )


def _recognise_pair(columns: Columns) -> str:
    if "conversations" in columns:
        return "sharegpt"
    if "instruction" in columns:
        return "alpaca"
    chosen = columns["chosen"]
    if "prompt" in columns or not isinstance(chosen, str):
        return "preference"
    if HH_TURN.match(chosen):
        return "hh"
    if EASYDS_TURN.match(chosen):
        return "easyds-reward"
    raise Malformed(
        "chosen and rejected are plain texts without a prompt in them; map the prompt's column "
        "with `columns: {…: prompt}`"
    )


def _chat(chat: list[Message]) -> Conversation | Prompt:
    """Messages up to the assistant's last word, or those that wait for it."""
    if chat and chat[-1]["role"] == "assistant":
        return Conversation(tuple(chat))
    return Prompt(tuple(chat))


def _pair(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> PreferencePair:
    """A pair from its prompt and two replies of one assistant message each."""
    for side in (chosen, rejected):
        if not side or side[-1]["role"] != "assistant":
            raise Dirty("no reply at the end")
    if len(chosen) != 1 or len(rejected) != 1:
        raise Dirty(PROMPTS_DIFFER)
    return PreferencePair(tuple(prompt), chosen[0]["content"], rejected[0]["content"])


def _from_messages(columns: Columns) -> Record:
    return _chat(messages(columns, "messages"))


def _from_prompt_completion(columns: Columns) -> Record:
    return _chat(messages(columns, "prompt") + reply(columns, "completion"))


def _from_preference(columns: Columns) -> Record:
    """TRL's pairs: an explicit prompt, or one that opens both sides."""
    chosen, rejected = reply(columns, "chosen"), reply(columns, "rejected")
    if "prompt" in columns and len(chosen) == 1:
        return _pair(messages(columns, "prompt"), chosen, rejected)
    if chosen[:-1] != rejected[:-1]:
        raise Dirty(PROMPTS_DIFFER)
    return _pair(chosen[:-1], chosen[-1:], rejected[-1:])


def _from_prompt(columns: Columns) -> Record:
    return _chat(messages(columns, "prompt"))


def _from_text(columns: Columns) -> Record:
    return PlainText(string(columns, "text"))


def _from_alpaca(columns: Columns) -> Record:
    """Instruction and input on two lines; `output` may also be a list of replies, best first."""
    instruction, extra = string(columns, "instruction"), optional_string(columns, "input")
    prompt = [*_system(columns), *_history(columns)]
    prompt.append(user(f"{instruction}\n{extra}" if extra else instruction))
    if "chosen" in columns and "rejected" in columns:
        return _pair(prompt, reply(columns, "chosen"), reply(columns, "rejected"))
    ranked = columns.get("output")
    if isinstance(ranked, list):
        if not all(isinstance(text, str) for text in ranked):
            raise Malformed("output must be text or a list of texts, best first")
        if len(ranked) < 2:
            raise Dirty("fewer than two ranked replies")
        return PreferencePair(tuple(prompt), ranked[0], ranked[-1])
    return _chat([*prompt, assistant(string(columns, "output"))])


def _history(columns: Columns) -> list[Message]:
    history = columns.get("history") or []
    if not isinstance(history, list):
        raise Malformed(f"history must be a list of [user, assistant], got {shape(history)}")
    chat: list[Message] = []
    for turn in history:
        match turn:
            case [str(question), str(answer)]:
                chat += [user(question), assistant(answer)]
            case _:
                raise Malformed(f"history must hold [user, assistant] texts, got {shape(turn)}")
    return chat


def _system(columns: Columns) -> list[Message]:
    content = optional_string(columns, "system")
    return [{"role": "system", "content": content}] if content else []


def _from_sharegpt(columns: Columns) -> Record:
    tools = columns.get("tools")
    if tools and tools != "[]":
        raise Dirty("tool definitions are not supported")
    chat = [*_system(columns), *messages(columns, "conversations")]
    if "chosen" in columns and "rejected" in columns:
        return _pair(chat, reply(columns, "chosen"), reply(columns, "rejected"))
    return _chat(chat)


def _from_hh(columns: Columns) -> Record:
    """Two whole dialogues that part at the last `Assistant:`."""
    prompt, chosen = dialogue(string(columns, "chosen"), HH_TURN, "chosen")
    other_prompt, rejected = dialogue(string(columns, "rejected"), HH_TURN, "rejected")
    if prompt != other_prompt:
        raise Dirty(PROMPTS_DIFFER)
    return PreferencePair(tuple(prompt), chosen, rejected)


def _from_easyds_reward(columns: Columns) -> Record:
    """Two texts that open with the prompt: `用户: …` and then `助手: …`."""
    prompt, chosen = dialogue(string(columns, "chosen"), EASYDS_TURN, "chosen")
    other_prompt, rejected = dialogue(string(columns, "rejected"), EASYDS_TURN, "rejected")
    if prompt != other_prompt:
        raise Dirty(PROMPTS_DIFFER)
    return PreferencePair(tuple(prompt), chosen, rejected)


def _from_cvalues(columns: Columns) -> Record:
    return PreferencePair(
        (user(string(columns, "prompt")),),
        string(columns, "pos_resp"),
        string(columns, "neg_resp"),
    )


def _from_easyds_sft(columns: Columns) -> Record:
    return _chat(messages(columns, "input") + reply(columns, "output"))


def _from_easyds_ppo(columns: Columns) -> Record:
    return _chat(messages(columns, "input"))


CONVERTERS: dict[str, Callable[[Columns], Record]] = {
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
