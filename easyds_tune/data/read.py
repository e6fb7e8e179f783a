"""`read`: one or several sources as records of the kind an algorithm needs.

Errors are collected over all sources. Records that are whole but useless (an empty reply, a pair
with one text twice) are left out and counted by reason; whatever the file gets wrong is an error.
Every column and every key of a message is used, or named in a note with its count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from easyds_tune.data.columns import Dirty, Fields, Malformed, Row, named, present
from easyds_tune.data.files import read_rows
from easyds_tune.data.formats import convert
from easyds_tune.data.kinds import NO_REPLY, WrongKind, as_kind, checked
from easyds_tune.data.marks import looks_marked
from easyds_tune.data.names import ASKED, JUDGED, THOUGHT, USUAL, plain_name
from easyds_tune.data.recognise import Unknown, recognise
from easyds_tune.data.records import Conversation, Kind, PlainText, Record
from easyds_tune.data.remedies import remedy
from easyds_tune.data.texts import parse_texts
from easyds_tune.data.verdicts import kto_column
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

MAX_PROBLEMS = 20
"""Problems of one source that are spelled out; the rest are counted."""


NEEDS: dict[Kind, str] = {
    "conversations": "name them with `columns`, e.g. {question: prompt, answer: completion}",
    "preferences": "a pair needs a better and a worse reply; name them with `columns`, "
    "e.g. {question: prompt, good: chosen, bad: rejected}",
    "prompts": "name the prompt's column with `columns`, e.g. {question: prompt}",
    "text": "name the text's column with `columns`, e.g. {content: text}",
}
SHOWN_NAMES = 20
"""Unused columns that a note names; a wide table has more."""


@dataclass(frozen=True)
class ReadReport:
    """The records, how many were left out for which reason, and what else a user should know."""

    records: list[Record]
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    """What of the file is not in the records, or is read in a way that could surprise."""


def read(
    source: DataSource | Sequence[DataSource], kind: Kind, folder: Path | None = None
) -> ReadReport:
    """Read sources as records of one kind; relative paths stand under `folder`.

    Conversations and pairs serve as prompts by dropping the reply; plain text serves SFT as it is.
    Raises DataError with the problems of all sources: file, line or record, rule, remedy.
    """
    sources = [source] if isinstance(source, DataSource) else list(source)
    report = ReadReport([])
    problems: list[str] = []
    for one in sources:
        try:
            part = _read_one(one, kind, folder)
        except DataError as error:
            problems += _capped(error.problems, one.path)
        else:
            report.records.extend(part.records)
            report.dropped.update(part.dropped)
            report.notes.extend(note for note in part.notes if note not in report.notes)
    if problems:
        raise DataError(problems)
    return report


def _read_one(source: DataSource, kind: Kind, folder: Path | None) -> ReadReport:
    rows, notes = parse_texts(read_rows(source, folder), source.format)
    layout = _format_of(rows, source, kind, notes)
    report = ReadReport([], notes=notes)
    unused: Counter[str] = Counter()
    problems: list[str] = []
    other_kinds: list[str] = []
    cut = 0
    for row in rows:
        fields = Fields(row.columns)
        try:
            whole = convert(fields, layout, kind)
            record = checked(as_kind(whole, kind))
        except Dirty as reason:
            report.dropped[str(reason)] += 1
        except Malformed as error:
            problems.append(f"{row.where}: {error}")
        except WrongKind as error:
            other_kinds.append(f"{row.where}: {error}")
        else:
            report.records.append(record)
            if source.limit is None or len(report.records) <= source.limit:
                unused += fields.unused()
                cut += _is_cut(record, whole)
    if other_kinds and not report.records:
        reason = other_kinds[0].partition(": ")[2]
        raise DataError([f"{source.path}: {reason}; {_kind_remedy(rows, source, kind)}"])
    if problems or other_kinds:
        raise DataError([*problems, *other_kinds])
    if not report.records:
        raise DataError([f"{source.path}: {_nothing_left(rows, report.dropped, source, kind)}"])
    records = report.records[: source.limit]
    if cut:
        notes.append(f"{cut} conversations end at their last trained reply; later turns are cut")
    notes += _unused_notes(unused, kind) + _markup_note(records)
    return ReadReport(records, report.dropped, notes)


def _format_of(rows: list[Row], source: DataSource, kind: Kind, notes: list[str]) -> str:
    if source.format == "auto":
        try:
            return recognise(rows, kind)
        except Unknown as error:
            problem = f"{source.path}: {error}; {_kind_remedy(rows, source, kind)}"
            raise DataError([problem]) from error
        except Malformed as error:
            raise DataError([f"{source.path}: {error}"]) from error
    if kind == "conversations" and (name := kto_column(rows)):
        notes.append(
            f"{name} labels replies as good and bad; all are trained alike, because `format` is "
            "named"
        )
    return source.format


def _nothing_left(rows: list[Row], dropped: Counter[str], source: DataSource, kind: Kind) -> str:
    """Why no record is left, and what to do, where that can be told."""
    reasons = "; ".join(f"{count} × {reason}" for reason, count in dropped.items())
    said = f"all {len(rows)} records were dropped ({reasons}); "
    if NO_REPLY not in dropped:
        return said + "repair the data"
    columns = present(rows)
    empty = [name for name in rows[0].columns if name not in columns]
    has_values = f" ({named(empty)} without a value)" if empty else ""
    return f"{said}the columns are {named(columns)}{has_values}; {_kind_remedy(rows, source, kind)}"


def _unused_notes(unused: Counter[str], kind: Kind) -> list[str]:
    """Notes of all that the records do not hold, first of what training may miss.

    Replies are left off prompts on purpose.
    """
    if kind == "prompts":
        unused = Counter({k: n for k, n in unused.items() if k not in USUAL["completion"]})
    thoughts, missed, other = Counter[str](), Counter[str](), Counter[str]()
    for name, count in unused.items():
        plain = plain_name(name)
        answered = kind in ("conversations", "preferences")
        if answered and THOUGHT.search(plain):
            thoughts[name] = count
        elif (answered and JUDGED.search(plain)) or (kind != "text" and ASKED.search(plain)):
            missed[name] = count
        else:
            other[name] = count
    notes = []
    if thoughts:
        notes.append(
            f"warning: the thoughts of {_listed(thoughts)} are not trained; write them into the "
            "reply to train them"
        )
    if missed:
        notes.append(f"warning: not used: {_listed(missed)}")
    return [*notes, f"not used: {_listed(other)}"] if other else notes


def _listed(unused: Counter[str]) -> str:
    """The first names, those of one count together."""
    by_count: dict[int, list[str]] = {}
    for name, count in list(unused.items())[:SHOWN_NAMES]:
        shown = name if name.strip() else repr(name)
        by_count.setdefault(count, []).append(shown if len(shown) <= 60 else f"{shown[:60]}…")
    parts = [f"{', '.join(names)} ({count} values)" for count, names in by_count.items()]
    more = len(unused) - SHOWN_NAMES
    return ", ".join(parts) + (f" and {more} more columns" if more > 0 else "")


def _markup_note(records: list[Record]) -> list[str]:
    """Dialogues among plain texts: all of their turns are trained on."""
    texts = [record.text for record in records if isinstance(record, PlainText)]
    count = sum(map(looks_marked, texts))
    return [f"{count} texts hold marked turns and train as plain text, questions too"] * bool(count)


def _is_cut(record: Record, whole: Record) -> bool:
    return (
        isinstance(record, Conversation)
        and isinstance(whole, Conversation)
        and len(record.messages) < len(whole.messages)
    )


def _kind_remedy(rows: list[Row], source: DataSource, kind: Kind) -> str:
    """What gives records of a kind: the columns that are there, or else those it needs."""
    return remedy(rows, kind, source.columns) or NEEDS[kind]


def _capped(problems: list[str], path: str) -> list[str]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    more = len(problems) - MAX_PROBLEMS
    return [*problems[:MAX_PROBLEMS], f"{path}: and {more} more problems of this kind"]
