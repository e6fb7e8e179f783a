"""Where a sweep's trials run and its finalists are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ray import tune

from easyds_tune.journal.events import FinalistEvent, NoteEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.sweep.actor import SweepSetting, TrialActor
from easyds_tune.sweep.finals import run_finals

Judged = FinalistEvent | NoteEvent


class Stage(Protocol):
    """What a sweep needs of the place where its trials run."""

    def trainable(self) -> Any:
        """What Tune makes its actors of; one takes one trial after another."""
        ...

    def judge(
        self,
        record: SweepRecord,
        finalists: Sequence[tuple[str, int]],
        tick: Callable[[], object],
    ) -> Iterator[Judged]:
        """Judge checkpoints, given as (trial, step), on what no decision has seen.

        tick: called every now and then; what it raises ends the finals.
        """
        ...


class TrainingStage:
    """Trials are trained for real."""

    def __init__(self, setting: SweepSetting) -> None:
        self._setting = setting

    def trainable(self) -> Any:
        """Workers that load base, data and judge once."""
        return tune.with_parameters(TrialActor, setting=self._setting)

    def judge(
        self,
        record: SweepRecord,
        finalists: Sequence[tuple[str, int]],
        tick: Callable[[], object],
    ) -> Iterator[Judged]:
        """Judge them on the sweep's slots."""
        return run_finals(self._setting, record, finalists, tick)
