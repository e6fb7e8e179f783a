"""The names that columns usually have, by what they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

USUAL: dict[str, tuple[str, ...]] = {
    "prompt": (
        "prompt", "question", "query", "instruction", "input", "ask", "user", "human", "problem",
        "问题", "提问", "用户", "指令",
    ),
    "completion": (
        "completion", "response", "answer", "output", "reply", "assistant", "std_answer",
        "model_answer", "target", "solution", "gpt", "回答", "答案", "回复", "助手",
    ),
    "chosen": (
        "chosen", "preferred", "better", "winner", "accepted", "good", "pos_resp", "好回答",
    ),
    "rejected": (
        "rejected", "dispreferred", "worse", "loser", "bad", "neg_resp", "坏回答",
    ),
    "text": ("text", "content", "document", "body", "文本", "正文"),
    "replies": (
        "responses", "answers", "outputs", "completions", "replies", "candidates", "generations",
    ),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "chat"),
}  # fmt: skip
"""Names that a column of each meaning usually has, the likeliest first."""


_ABOUT = (
    r"(?!_(ids?|idx|index|source|type|name|lang|language|len|length|tokens?|count|hash|url|date|"
    r"version|template)$)(_|$)"
)
_THOUGHTS = (
    "reasoning|reasoning_content|thinking|thoughts?|think|cot|rationale|scratchpad|思考|推理"
)
_ASKED = "prompt|system|instruction|context|question|query|image|video|audio|tool|问题|系统|提示"
_JUDGED = "label|weight|mask|loss|标签|权重"
THOUGHT = re.compile(rf"(^|_)({_THOUGHTS}){_ABOUT}")
"""Plain names of columns with a thought before the reply."""
ASKED = re.compile(rf"(^|_)({_ASKED})s?{_ABOUT}")
"""Plain names of columns that may be a part of the question."""
JUDGED = re.compile(rf"(^|_)({_JUDGED})s?{_ABOUT}")
"""Plain names of columns that may say what is trained, and how much."""

_REPLIES = (
    "completion", "response", "answer", "output", "reply", "generation", "candidate", "summary",
    "conversation", "ref", "回答", "答案", "回复",
)  # fmt: skip
_REPLY = f"({'|'.join(_REPLIES)})"
NUMBERED_REPLY = re.compile(rf"(.+_)?{_REPLY}_?([a-dijk]|\d+|one|two|first|second|left|right)")
"""Plain names of one of several replies: `response_a`, `answer1`."""
REPLY_VARIANT = re.compile(rf"{NUMBERED_REPLY.pattern}|.+_{_REPLY}")
"""The same, and `original_response`."""


def plain_name(column: str) -> str:
    """A name without its case, blanks and marks: `isGood`, `Is good?` and `is-good` are one."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", column)
    return re.sub(r"[\W_]+", "_", words.lower()).strip("_")


def usual_column(columns: Sequence[str], meaning: str) -> str | None:
    """The column that most likely holds a meaning, whatever the case and blanks of its name."""
    plain = {column: plain_name(column) for column in columns}
    for name in USUAL[meaning]:
        if name in columns:
            return name
        for column in columns:
            if plain[column] == name:
                return column
    for name in USUAL[meaning][:4]:
        for column in columns:
            if plain[column].endswith(f"_{name}") or plain[column].startswith(f"{name}_"):
                return column
    return None
