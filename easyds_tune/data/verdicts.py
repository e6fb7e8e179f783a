"""Verdicts on single replies, as KTO trains on: a good/bad label in a column or on a message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from easyds_tune.data.columns import Columns, Row, holding, is_empty, present
from easyds_tune.data.messages import role_of
from easyds_tune.data.names import NUMBERED_REPLY, plain_name, usual_column

_KTO_NAME = re.compile(r"kto_(tag|label)s?")
_NAME = re.compile(
    r"(is_|was_)?(good|bad|chosen|preferred|accepted|rejected|desirable|undesirable|liked|disliked)"
    r"|(.+_)?labels?(_.+)?|kto.*|(.+_)?(preference|feedback|verdict|judge?ment|thumbs?)(_.+)?"
    r"|thumbs?(up|down)|(is_)?(up|down)_?voted?|标签|评价|标注|反馈|偏好|好坏|是否.+"
)
_COUNTED_NAME = re.compile(
    r"(.+_)?(ratings?|scores?|rewards?|tags?|votes?|likes?|dislikes?|quality)|"
    r"(is_)?(correct|helpful|positive|negative)|评分|打分|点赞"
)
"""Names of numbers too, so 0 or 1 alone in the whole file is no verdict under them."""
_NUMBERS = frozenset({"true", "false", "1", "0", "-1", "1.0", "0.0", "-1.0", "+1"})
_GOOD_AND_BAD = (
    _NUMBERS,
    *(
        frozenset(pair.split("/"))
        for pair in (
            "yes/no", "good/bad", "desirable/undesirable", "chosen/rejected", "accepted/rejected",
            "accept/reject", "preferred/dispreferred", "preferred/rejected", "better/worse",
            "like/dislike", "liked/disliked", "positive/negative", "pos/neg", "correct/incorrect",
            "correct/wrong", "right/wrong", "up/down", "thumbs_up/thumbs_down", "upvote/downvote",
            "thumbsup/thumbsdown", "helpful/unhelpful", "👍/👎", "好/坏", "好/差", "赞/踩", "是/否",
            "对/错", "正确/错误", "喜欢/不喜欢", "正面/负面", "满意/不满意", "接受/拒绝",
        )
    ),
)  # fmt: skip
_NEUTRAL = {"neutral", "tie", "unknown", "none", "中立", "中性", "一般"}


def kto_column(rows: Sequence[Row]) -> str | None:
    """The column, or key of messages, that labels single replies as good or bad."""
    if _has_pair(rows):
        return None
    for name in present(rows):
        values = [row.columns[name] for row in holding(rows, name)]
        if _is_verdict(name, values) and not _is_the_reply(rows, name):
            return name
    by_key: dict[str, list[object]] = {}
    for row in rows:
        for column in ("messages", "conversations", "completion"):
            for message in _replies_in(row.columns.get(column)):
                for key, value in message.items():
                    if not is_empty(value):
                        by_key.setdefault(key, []).append(value)
    return next((key for key, values in by_key.items() if _is_verdict(key, values)), None)


def _has_pair(rows: Sequence[Row]) -> bool:
    """Whether the replies to one prompt stand in two columns, so no label is about one alone."""
    replies = [
        name
        for name in present(rows)
        if any(_word(row.columns[name]) not in _NUMBERS for row in holding(rows, name))
    ]
    if sum(NUMBERED_REPLY.fullmatch(plain_name(name)) is not None for name in replies) > 1:
        return True
    chosen = usual_column(replies, "chosen")
    return chosen is not None and (
        usual_column([name for name in replies if name != chosen], "rejected") is not None
    )


def _is_verdict(name: str, values: Sequence[object]) -> bool:
    """Whether a name says a verdict and the values are those of one."""
    plain = plain_name(name)
    if _KTO_NAME.fullmatch(plain):
        return True
    counted = _COUNTED_NAME.fullmatch(plain) is not None
    if not (counted or _NAME.fullmatch(plain)):
        return False
    words = {_word(value) for value in values}
    if counted and words <= _NUMBERS and len(words) < 2:
        return False
    clear = words - _NEUTRAL
    return bool(clear) and any(clear <= pair for pair in _GOOD_AND_BAD)


def _is_the_reply(rows: Sequence[Row], name: str) -> bool:
    """Whether the label only repeats what the reply says, as in data of a classifier."""
    labelled = holding(rows, name)
    return all(_word(row.columns[name]) == _word(_reply(row.columns, name)) for row in labelled)


def _reply(columns: Columns, label: str) -> object:
    for name in ("messages", "conversations"):
        if messages := list(_replies_in(columns.get(name))):
            return messages[-1].get("value", messages[-1].get("content"))
    column = usual_column([name for name in columns if name != label], "completion")
    value = columns.get(column) if column else None
    if messages := list(_replies_in(value)):
        return messages[-1].get("value", messages[-1].get("content"))
    return value


def _replies_in(messages: object) -> Iterator[Columns]:
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict):
            continue
        if role_of(message.get("from") or message.get("role")) == "assistant":
            yield message


def _word(value: object) -> str:
    text = value if isinstance(value, str) else str(value) if _is_scalar(value) else ""
    return re.sub(r"[\s-]+(?!\d)", "_", text.strip().strip(".。!！\"'").lower())


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10)
