"""What to write in a spec so that a file's columns give the records that are asked for.

A remedy is tried on the file's first records before it is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from easyds_tune.data.columns import Dirty, Fields, Malformed, Row, holding, named, present
from easyds_tune.data.formats import convert
from easyds_tune.data.kinds import WrongKind, as_kind, checked
from easyds_tune.data.messages import holds_messages
from easyds_tune.data.names import REPLY_VARIANT, plain_name, usual_column
from easyds_tune.data.recognise import recognise
from easyds_tune.data.records import Kind
from easyds_tune.data.texts import parse_texts
from easyds_tune.data.verdicts import kto_column
from easyds_tune.errors import DataError

TRIED_RECORDS = 100
_WAYS: dict[Kind, tuple[tuple[tuple[str, str], ...], ...]] = {
    "conversations": (
        (("prompt", "instruction"), ("completion", "output")),
        (("prompt", "prompt"), ("completion", "completion")),
        (("messages", "messages"),),
        (("chosen", "messages"),),
        (("prompt", "prompt"), ("chosen", "completion")),
        (("messages", "prompt"), ("chosen", "completion")),
        (("text", "text"),),
    ),
    "preferences": (
        (("prompt", "prompt"), ("chosen", "chosen"), ("rejected", "rejected")),
        (("chosen", "chosen"), ("rejected", "rejected")),
    ),
    "prompts": ((("prompt", "prompt"),), (("messages", "messages"),)),
    "text": ((("text", "text"),),),
}
"""The ways to a kind: what a column usually means, and the name it needs."""
_FORMATS = {
    "output": "alpaca",
    "completion": "prompt-completion",
    "messages": "messages",
    "text": "text",
    "rejected": "preference",
    "prompt": "prompt",
}
_ABOUT_A_REPLY = re.compile(
    r"_(ids?|idx|index|models?|scores?|ratings?|reasons?|types?|len|length|tokens?|source|lang|language"
    r"|time|date|url|hash|count)$"
)
_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")

Renames = dict[str, str]


def remedy(rows: Sequence[Row], kind: Kind, written: Mapping[str, str]) -> str | None:
    """What to write, or how to change the file; None where neither can be told.

    Args:
        rows: The file's records, their columns renamed as the spec says.
        written: The spec's own `columns`, which the remedy keeps.
    """
    tried = list(rows[:TRIED_RECORDS])
    if kind in ("conversations", "preferences") and kto_column(tried):
        return None
    if kind in ("conversations", "preferences") and (names := _compared(tried)):
        return _of_comparison(names, kind)
    for renames, layout in _candidates(tried, kind):
        if (renames or layout) and _works(tried, renames, layout, kind):
            return _line(_merged(written, renames), layout)
    return _of_lists(tried, kind) or _of_one_object(rows)


def _candidates(rows: list[Row], kind: Kind) -> Iterator[tuple[Renames, str | None]]:
    """Renames that may give the kind, and the format to name where the columns alone do not."""
    readable = _readable(rows)
    for way in _WAYS[kind]:
        renames = _renames(readable, way)
        if renames is None:
            continue
        changed = _with_room(rows, renames)
        yield changed, None
        yield changed, _FORMATS[way[-1][1]]


def _with_room(rows: list[Row], renames: Renames) -> Renames:
    """The renames, and other names for columns whose own name they give to another."""
    taken = {name for row in rows for name in row.columns} - renames.keys()
    renames = renames | {name: f"other_{name}" for name in taken & set(renames.values())}
    return {old: new for old, new in renames.items() if old != new}


def _readable(rows: list[Row]) -> list[str]:
    """The columns that may hold a prompt or a reply."""
    return [
        name
        for name, value in _first_values(rows).items()
        if (isinstance(value, str) or (isinstance(value, dict | list) and holds_messages(value)))
        and not _ABOUT_A_REPLY.search(plain_name(name))
    ]


def _compared(rows: list[Row]) -> list[str]:
    """Columns of several replies to one prompt, none of which is known to be the one to train."""
    columns = [name for name in _readable(rows) if not _is_choice(rows, name)]
    chosen, rejected = usual_column(columns, "chosen"), usual_column(columns, "rejected")
    if chosen and rejected:
        return []
    plain = {column: plain_name(column) for column in columns}
    variants = [column for column in columns if REPLY_VARIANT.fullmatch(plain[column])]
    side = chosen or rejected
    if side:
        reply = usual_column([column for column in columns if column != side], "completion")
        variants = [*dict.fromkeys([side, *([reply] if reply else variants[:1])])]
    return variants if len(variants) > 1 else []


def _is_choice(rows: list[Row], name: str) -> bool:
    """Whether a column has few values again and again, such as `model_a` and `tie`."""
    values = [str(row.columns[name]) for row in holding(rows, name)]
    return len(values) > 3 >= len(set(values))


def _of_comparison(names: list[str], kind: Kind) -> str:
    """What to do with several replies to one prompt in columns of their own."""
    said = (
        f"{named(names)} are several replies to one prompt, so this is comparison data: in each "
        "record rename the better reply to `chosen` and the worse one to `rejected`, and leave "
        "out ties"
    )
    if kind == "preferences":
        return said
    return f"{said}, for rm or dpo; for sft write the better reply alone, as `completion`"


def _renames(columns: list[str], way: tuple[tuple[str, str], ...]) -> Renames | None:
    """{column: name it needs}, each column for one meaning; None where one is missing."""
    left, renames = list(columns), {}
    for meaning, name in way:
        pair = [usual_column(left, "chosen"), usual_column(left, "rejected")]
        ours = [name for name in left if meaning != "completion" or name not in pair]
        column = usual_column(ours, meaning)
        if column is None:
            return None
        left.remove(column)
        renames[column] = name
    if "instruction" in renames.values():
        if "instruction" not in renames:
            return None
        if "context" in left and "input" not in left:
            renames["context"] = "input"
    return renames


def _first_values(rows: list[Row]) -> dict[str, object]:
    found = {name: holding(rows, name, 1) for name in present(rows)}
    return {name: held[0].columns[name] for name, held in found.items() if held}


def _works(rows: list[Row], renames: Renames, layout: str | None, kind: Kind) -> bool:
    """Whether most records are read with the renames and the format."""
    renamed = [
        Row(row.where, {renames.get(name, name): value for name, value in row.columns.items()})
        for row in rows
    ]
    good = 0
    try:
        parsed, _ = parse_texts(renamed, layout or "auto")
        found = layout or recognise(parsed, kind)
        for row in parsed:
            try:
                checked(as_kind(convert(Fields(row.columns), found, kind), kind))
            except Dirty:
                continue
            good += 1
    except (DataError, Malformed, WrongKind):
        return False
    return 2 * good > len(rows)


def _of_lists(rows: list[Row], kind: Kind) -> str | None:
    """What to do with a list of replies to one question."""
    values = _first_values(rows)
    several = [
        name
        for name, value in values.items()
        if isinstance(value, list) and all(isinstance(reply, str) for reply in value)
    ]
    question = usual_column(list(values), "prompt")
    replies = usual_column(several, "replies") or usual_column(several, "completion")
    if replies is None or question is None or kind not in ("conversations", "preferences"):
        return None
    said = f"{_key(replies)} holds several replies in each record: "
    if kind == "conversations":
        return f"{said}write the best one alone, as text, or train rm or dpo on pairs"
    renames = _with_room(rows, {question: "instruction", replies: "output"})
    if _works(rows, renames, "alpaca", kind):
        return f"{said}sort each list best first, and {_line(renames, 'alpaca')}"
    return f"{said}write the best one as `chosen` and the worst one as `rejected`, each as text"


def _of_one_object(rows: Sequence[Row]) -> str | None:
    """What to do with a file that is one object around its records."""
    lists = [
        name
        for name, value in rows[0].columns.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    ]
    if len(rows) > 1 or not lists:
        return None
    return (
        f"the file is one object that holds its records under {named(lists)}: write that list "
        "itself as the file, one flat object for each record (in Python: "
        f"json.dump(json.load(old)[{lists[0]!r:.40}], new))"
    )


def _merged(written: Mapping[str, str], renames: Renames) -> Renames:
    """The spec's renames followed by those of the remedy, as one."""
    first = {old: renames.get(new, new) for old, new in written.items()}
    return first | {old: new for old, new in renames.items() if old not in written.values()}


def _line(renames: Renames, layout: str | None) -> str:
    pairs = [f"{_key(old)}: {new}" for old, new in renames.items()]
    parts = [f"`columns: {{{', '.join(pairs)}}}`"] if pairs else []
    if layout:
        parts.append(f"`format: {layout}`")
    return f"write {' and '.join(parts)} beside `path`"


def _key(name: str) -> str:
    """A column's name as a key of a YAML flow mapping."""
    if re.fullmatch(r"[^\W\d]\w*", name) and name.lower() not in _YAML_WORDS:
        return name
    return json.dumps(name, ensure_ascii=False)
