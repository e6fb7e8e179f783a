"""What `easyds-tune status NAME` shows, from the record alone."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from easyds_tune.journal.replay import SweepRecord
from easyds_tune.results.states import state_counts
from easyds_tune.results.table import RankedTable
from easyds_tune.results.text import format_seconds
from easyds_tune.results.why import ended_early


def status_view(record: SweepRecord, now: float, top: int = 10) -> Group:
    """Where the sweep stands at `now` (unix seconds), why trials failed, and the ranked table."""
    parts: list[RenderableType] = [_headline(record), _clock_line(record, now)]
    parts += [Text(sentence) for sentence in ended_early(record)]
    parts += [Text(f"{trial}: {reason}", style="red") for trial, reason in _failures(record)]
    parts += [Text(f"note: {note}", style="yellow") for note in record.notes]
    if record.torn_bytes:
        parts.append(
            Text(
                f"The last {record.torn_bytes} bytes of the journal are no whole line and were "
                "left out: it is being written, or was torn by a crash.",
                style="yellow",
            )
        )
    if record.trials:
        parts.append(RankedTable(record, top))
    return Group(*parts)


def _headline(record: SweepRecord) -> Text:
    return Text.assemble(
        (record.name, "bold"),
        f" · {record.algorithm} · {record.objective.metric} {record.objective.mode} · ",
        state_counts(record),
    )


def _clock_line(record: SweepRecord, now: float) -> Text:
    since = format_seconds(max(now - record.updated, 0))
    if record.final is None:
        lasted = format_seconds(max(now - record.created, 0))
        return Text(f"Not finished: begun {lasted} ago, last event {since} ago.")
    lasted = format_seconds(max(record.updated - record.created, 0))
    return Text(f"Finished {since} ago with exit code {record.final.exit_code}, after {lasted}.")


def _failures(record: SweepRecord) -> list[tuple[str, str]]:
    """Failed trials with the first line of their error."""
    return [
        (f"trial {trial.id} {trial.state}", f"{trial.error.type}: {first_line}")
        for trial in record.trials.values()
        if trial.error is not None
        for first_line in [trial.error.message.partition("\n")[0]]
    ]
