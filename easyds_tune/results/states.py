"""The colour of each trial state, and how many trials are in each."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from easyds_tune.journal.events import TrialState
from easyds_tune.journal.replay import SweepRecord

STATE_STYLES = {
    TrialState.COMPLETED: "green",
    TrialState.RUNNING: "cyan",
    TrialState.PRUNED: "yellow",
    TrialState.PAUSED: "yellow",
    TrialState.INTERRUPTED: "yellow",
    TrialState.BOUNDED: "red",
    TrialState.DIVERGED: "red",
    TrialState.OUT_OF_MEMORY: "red",
    TrialState.FAILED: "red",
}


def state_text(state: TrialState) -> Text:
    """The state's name in its colour."""
    return Text(str(state), style=STATE_STYLES[state])


def trials_to_come(record: SweepRecord) -> int:
    """Trials of the search, and those that the finals have trained again so far."""
    return record.num_trials + sum(t.source == "finals" for t in record.trials.values())


def state_counts(record: SweepRecord) -> Text:
    """How far the sweep is: ``5/8 trials · 2 RUNNING · 2 COMPLETED · 1 PRUNED``."""
    counts = Counter(trial.state for trial in record.trials.values())
    ended = sum(count for state, count in counts.items() if state.is_final)
    line = Text(f"{ended}/{trials_to_come(record)} trials")
    for state in TrialState:
        if counts[state]:
            line.append(f" · {counts[state]} ").append(state_text(state))
    return line
