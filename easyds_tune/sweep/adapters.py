"""Ray Tune's searcher and scheduler, both thin: they ask the decider and write down its answers."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from easyds_tune.decisions.decider import Decider, New, Over, Promote
from easyds_tune.errors import EasyDSError
from easyds_tune.journal.events import StopEvent
from easyds_tune.spec.sweep import trial_id as name_of
from easyds_tune.sweep.recorder import Recorder

ACTIONS = {
    "continue": TrialScheduler.CONTINUE,
    "pause": TrialScheduler.PAUSE,
    "stop": TrialScheduler.STOP,
}


class DecidingSearcher(Searcher):
    """Starts a trial when the decider wants one and a slot is free; Tune itself counts neither."""

    def __init__(self, decider: Decider, recorder: Recorder) -> None:
        objective = decider.rules.objective
        super().__init__(metric=objective.metric, mode=objective.mode)
        self._decider = decider
        self._recorder = recorder

    def suggest(self, trial_id: str) -> Any:
        """The next configuration; None while no trial should begin; FINISHED after the last."""
        self._recorder.stop_if_due(self._decider)
        decision = self._decider.next()
        if isinstance(decision, Over):
            return Searcher.FINISHED
        try:
            proposal = self._decider.propose() if isinstance(decision, New) else None
        except EasyDSError as error:
            # What was found so far deserves its finals, whatever the space's file does now.
            self._recorder.append(StopEvent(f"no configuration could be proposed: {error}"))
            return None
        if proposal is None:
            return None
        self._recorder.suggested(trial_id, proposal)
        return {
            "trial": name_of(proposal.number),
            "params": proposal.params,
            "seed": proposal.seed,
        }

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
        return str(ACTIONS[verdict.action])

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """A paused trial that the decider promotes; Tune starts new ones by itself.

        Trials that still wait when the search is over are stopped here, or Tune would never end.
        """
        paused = {
            trial.trial_id: trial
            for trial in tune_controller.get_trials()
            if trial.status == Trial.PAUSED
        }
        if not paused:
            return None
        self._recorder.stop_if_due(self._decider)
        decision = self._decider.next()
        if isinstance(decision, Promote):
            trial = paused.get(self._recorder.ray_id(decision.trial))
            if trial is not None:  # else its pause is still being saved
                self._recorder.promoted(decision)
            return trial
        if isinstance(decision, Over):
            for trial in paused.values():
                tune_controller.stop_trial(trial)
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
