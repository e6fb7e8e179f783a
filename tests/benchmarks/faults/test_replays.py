"""What the grid of faults relies on: a journal of other decisions is told from a true one."""

from __future__ import annotations

import dataclasses

import pytest

from easyds_tune.decisions.make import make_decider
from easyds_tune.journal.events import DecideEvent, Entry, FinishEvent, SuggestEvent, TrialState
from easyds_tune.simulation.discrete import simulate
from easyds_tune.spec.sweep import SweepSpec
from tests.benchmarks.faults.replays import first_other_decision
from tests.simulation.landscapes import curves, sweep_spec

SLOTS = 2


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    return sweep_spec(search={"num_trials": 12})


@pytest.fixture(scope="module")
def entries(spec: SweepSpec) -> list[Entry]:
    return simulate(
        spec, curves(3), lambda record: make_decider(spec, record, SLOTS), SLOTS
    ).entries


def changed(entries: list[Entry], kind: type, **fields: object) -> list[Entry]:
    """The entries with the last event of a kind changed."""
    number = max(n for n, entry in enumerate(entries) if isinstance(entry.event, kind))
    event = dataclasses.replace(entries[number].event, **fields)  # type: ignore[arg-type]
    return [*entries[:number], entries[number]._replace(event=event), *entries[number + 1 :]]


def test_a_true_journal_replays(spec: SweepSpec, entries: list[Entry]) -> None:
    assert sum(isinstance(entry.event, DecideEvent) for entry in entries) > 3
    assert first_other_decision(spec, entries, SLOTS) == ""


def test_another_suggestion_is_seen(spec: SweepSpec, entries: list[Entry]) -> None:
    false = changed(entries, SuggestEvent, params={"training.learning_rate": 1e-3})
    assert "where the journal has Proposal" in first_other_decision(spec, false, SLOTS)


def test_another_decision_is_seen(spec: SweepSpec, entries: list[Entry]) -> None:
    false = changed(entries, DecideEvent, reason="because")
    assert first_other_decision(spec, false, SLOTS) != ""


def test_another_end_is_seen(spec: SweepSpec, entries: list[Entry]) -> None:
    ended = [
        entry
        for entry in entries
        if not (isinstance(entry.event, FinishEvent) and entry.event.state is TrialState.COMPLETED)
    ]
    assert "a trial becomes" in first_other_decision(spec, ended, SLOTS)
