"""Which format a file has, decided over all of its records: a column counts if any holds a value.

What only looks like one of the formats is refused with what to do instead: KTO labels, one message
a row, records nested in one object.
"""

from __future__ import annotations

from collections.abc import Sequence

from easyds_tune.data.columns import Malformed, Row, holding, named, present
from easyds_tune.data.marks import EASYDS_TURN, HH_TURN
from easyds_tune.data.messages import holds_messages, role_of
from easyds_tune.data.names import usual_column
from easyds_tune.data.records import Kind
from easyds_tune.data.verdicts import kto_column

NEEDED: tuple[tuple[set[str], str], ...] = (
    ({"instruction", "output"}, "alpaca"),
    ({"conversations"}, "sharegpt"),
    ({"messages"}, "messages"),
    ({"prompt", "completion"}, "prompt-completion"),
    ({"input", "output"}, "easyds-sft"),
    ({"input"}, "easyds-ppo"),
    ({"prompt"}, "prompt"),
    ({"text"}, "text"),
)
_WITHOUT_REPLY = ("easyds-ppo", "prompt")


class Unknown(Malformed):
    """The columns are those of no format, or not of one that can be read."""


def recognise(rows: Sequence[Row], kind: Kind) -> str:
    """The format of a file by the columns of all its records.

    Raises Malformed where none fits, or where records of it are no records to train on.
    """
    _reject_columns_in_one(rows)
    names = set(present(rows))
    if {"pos_resp", "neg_resp"} <= names:
        return "cvalues"
    if {"chosen", "rejected"} <= names:
        return _recognise_pair(rows, names)
    found = next((name for needed, name in NEEDED if needed <= names), None)
    if kind != "prompts" and found != "text":
        _reject_kto(rows, found, kind)
    if found in (None, "text"):
        _reject_flat_tree(rows, names)
    if found is None:
        raise Unknown(f"the columns {named(present(rows))} fit no known format")
    return found


def _reject_kto(rows: Sequence[Row], found: str | None, kind: Kind) -> None:
    """Refuse labelled replies, also where the reply's column has another name yet."""
    name = kto_column(rows)
    has_replies = found not in (None, *_WITHOUT_REPLY)
    if not name or not (has_replies or usual_column(present(rows), "completion")):
        return
    remedy = "give preference pairs, a good and a bad reply to one prompt"
    if kind == "conversations":
        layout = found if has_replies else "prompt-completion"
        remedy += (
            f"; for sft keep the good replies alone, or name `format: {layout}` to imitate every "
            "reply, bad ones too"
        )
    raise Malformed(
        f"this is KTO data (one reply with a good/bad label, {name!r}), which no algorithm here "
        f"trains on; {remedy}"
    )


def _reject_flat_tree(rows: Sequence[Row], names: set[str]) -> None:
    content = "text" if "text" in names else "content"
    if not {"role", content} <= names:
        return
    if all(role_of(row.columns["role"]) for row in holding(rows, "role")):
        raise Malformed(
            f"holds one message a row ('role' beside {content!r}), so no record is a whole "
            "conversation; write each conversation as one row with the list `messages` of role "
            "and content (follow 'parent_id' from each last reply)"
            + ("; or name `format: text` to train on each text alone" if content == "text" else "")
        )


def _reject_columns_in_one(rows: Sequence[Row]) -> None:
    """Refuse one object whose values are whole columns, as pandas writes them by default."""
    values = list(rows[0].columns.values())
    if len(rows) == 1 and len(values) > 1 and all(map(_is_column, values)):
        raise Malformed(
            "the file is one object of objects or lists, not a list of records: write one flat "
            "object for each record (in pandas: to_json(path, orient='records', lines=True))"
        )


def _is_column(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and not holds_messages(value)
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(item, str | int | float | None) for item in value)
    )


def _recognise_pair(rows: Sequence[Row], names: set[str]) -> str:
    if "conversations" in names:
        return "sharegpt"
    if "instruction" in names:
        return "alpaca"
    chosen = [row.columns["chosen"] for row in holding(rows, "chosen")]
    texts = [value for value in chosen if isinstance(value, str)]
    if "prompt" in names or len(texts) < len(chosen):
        return "preference"
    if any(HH_TURN.match(text) for text in texts):
        return "hh"
    if any(EASYDS_TURN.match(text) for text in texts):
        return "easyds-reward"
    raise Unknown("chosen and rejected are plain texts without a prompt in them")
