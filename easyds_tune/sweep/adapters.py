"""Ray Tune's searcher and scheduler, both thin: they ask the decider and write down its answers."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from easyds_tune.decisions.decider import Decider, GoOn, New, Over
from easyds_tune.errors import EasyDSError
from easyds_tune.journal.events import StopEvent
from easyds_tune.sweep.recorder import Recorder


class DecidingSearcher(Searcher):
    """Gives Tune what the decider wants run when a slot is free; Tune itself counts neither.

    To Tune every run is a trial of its own: the first of a configuration, and each that goes on.
    """

    def __init__(self, decider: Decider, recorder: Recorder) -> None:
        objective = decider.rules.objective
        super().__init__(metric=objective.metric, mode=objective.mode)
        self._decider = decider
        self._recorder = recorder

    def suggest(self, trial_id: str) -> Any:
        """What to run next; None while there is nothing to run; FINISHED after the last."""
        self._recorder.tick()
        if self._recorder.is_stopping:
            return None
        self._recorder.stop_if_due(self._decider)
        # Tune asks ahead, while all slots are taken: only what would begin now needs room.
        decision = self._decider.next()
        if isinstance(decision, GoOn | New) and not self._recorder.has_room():
            return None
        match decision:
            case Over():
                self._recorder.release_paused()
                return Searcher.FINISHED
            case GoOn():
                return self._recorder.goes_on(trial_id, decision)
            case New():
                return self._begin(trial_id)
        return None

    def _begin(self, trial_id: str) -> dict[str, Any] | None:
        try:
            proposal = self._decider.propose()
        except EasyDSError as error:
            # What was found so far deserves its finals, whatever the space's file does now.
            self._recorder.append(StopEvent(f"no configuration could be proposed: {error}"))
            return None
        return None if proposal is None else self._recorder.suggested(trial_id, proposal)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the decider reads the record."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the only durable state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is never restored from Tune's files."""


class DecidingScheduler(TrialScheduler):
    """Passes each report to the journal first, then to the decider, and its verdict to Tune."""

    def __init__(self, decider: Decider, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._decider = decider
        self._recorder = recorder

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What becomes of a trial that reported."""
        name = self._recorder.reported(trial.trial_id, result)
        if name is None:
            return str(TrialScheduler.STOP)
        self._recorder.stop_if_due(self._decider)
        verdict = self._decider.on_report(name, bool(result["is_last"]))
        self._recorder.decided(name, verdict)
        is_over = verdict.action != "continue" or self._recorder.interrupt_if_stopping(name)
        return str(TrialScheduler.STOP if is_over else TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """None: Tune starts what the searcher gave it by itself, and nothing waits in Tune."""
        return None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: the searcher has told the recorder."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: the recorder writes a trial's end."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: the recorder writes a trial's end."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: the recorder writes a trial's end."""

    def debug_string(self) -> str:
        """For Tune's own table, which nobody sees."""
        return "decided by the journal"
