"""`read`: one or several sources as records of the kind an algorithm needs.

Errors are collected over all sources. Records that are whole but useless (an empty reply, a pair
with one text twice) are dropped and counted by reason; whatever the file gets wrong is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from easyds_tune.data.files import Row, read_rows
from easyds_tune.data.formats import CONVERTERS, recognise
from easyds_tune.data.messages import Dirty, Malformed
from easyds_tune.data.records import (
    Conversation,
    Kind,
    Message,
    PlainText,
    PreferencePair,
    Prompt,
    Record,
    prompt_of,
)
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

MAX_PROBLEMS = 20
"""Problems of one source that are spelled out; the rest are counted."""


@dataclass(frozen=True)
class ReadReport:
    """The records, how many were dropped for which reason, and what else was not used."""

    records: list[Record]
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class _WrongKind(Exception):
    """The format cannot give the kind that was asked for; true of all its records."""


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
    if problems:
        raise DataError(problems)
    return report


def _read_one(source: DataSource, kind: Kind, folder: Path | None) -> ReadReport:
    rows = read_rows(source, folder)
    convert = CONVERTERS[_format_of(rows[0], source)]
    report = ReadReport([])
    problems: list[str] = []
    for row in rows:
        try:
            report.records.append(_checked(_as_kind(convert(row.columns), kind)))
        except Dirty as reason:
            report.dropped[str(reason)] += 1
        except Malformed as error:
            problems.append(f"{row.where}: {error}")
        except _WrongKind as error:
            raise DataError([f"{source.path}: {error}"]) from error
    if problems:
        raise DataError(problems)
    if not report.records:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in report.dropped.items())
        raise DataError(
            [f"{source.path}: all {len(rows)} records were dropped ({reasons}); repair the data"]
        )
    return ReadReport(report.records[: source.limit], report.dropped)


def _format_of(first: Row, source: DataSource) -> str:
    if source.format != "auto":
        return source.format
    try:
        return recognise(first.columns)
    except Malformed as error:
        raise DataError([f"{source.path}: {error}"]) from error


def _checked(record: Record) -> Record:
    """Refuse what no tokenizer can take or no training can use."""
    texts = [m["content"] for m in prompt_of(record)]
    match record:
        case Conversation(messages):
            texts.append(messages[-1]["content"])
            _require(texts[-1], "empty reply")
        case PreferencePair(_, chosen, rejected):
            texts += [chosen, rejected]
            _require(chosen, "empty reply")
            _require(rejected, "empty reply")
            if chosen.strip() == rejected.strip():
                raise Dirty("chosen equals rejected")
        case PlainText(text):
            _require(text, "empty text")
    _require("".join(_asked(prompt_of(record))), "empty prompt")
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed(
            f"holds half a surrogate pair ({error.object[error.start]!r}), which is no character; "
            "write the whole pair"
        ) from error
    return record


def _asked(prompt: Sequence[Message]) -> list[str]:
    return [message["content"] for message in prompt if message["role"] != "system"]


def _require(text: str, reason: str) -> None:
    if not text.strip():
        raise Dirty(reason)


def _as_kind(record: Record, kind: Kind) -> Record:
    match kind, record:
        case ("conversations", Conversation() | PlainText()):
            return record
        case ("conversations", Prompt()):
            raise Dirty("no reply at the end")
        case ("preferences", PreferencePair()) | ("prompts", Prompt()) | ("text", PlainText()):
            return record
        case "prompts", Conversation() | PreferencePair():
            return Prompt(prompt_of(record))
    remedy = {
        "conversations": "map its prompt and reply with `columns: {…: prompt, …: completion}`",
        "preferences": "a pair needs a better and a worse reply: prompt, chosen, rejected",
        "prompts": "map the prompt's column with `columns: {…: prompt}`",
        "text": "map the text's column with `columns: {…: text}`",
    }[kind]
    held = {
        Conversation: "conversations",
        PreferencePair: "preference pairs",
        Prompt: "prompts",
        PlainText: "plain text",
    }[type(record)]
    raise _WrongKind(f"holds {held} where {kind} are asked for; {remedy}")


def _capped(problems: list[str], path: str) -> list[str]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    more = len(problems) - MAX_PROBLEMS
    return [*problems[:MAX_PROBLEMS], f"{path}: and {more} more problems of this kind"]
