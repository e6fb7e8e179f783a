"""What stops trials early, and the rungs it looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from easyds_tune.spec.rungs import rungs
from easyds_tune.spec.sweep import SweepSpec, trial_id

Decided = Callable[[str, int, str, str, str], None]


class JournalledASHA(ASHAScheduler):
    """Ray's asynchronous halving; each time it stops a trial it says so and why.

    The default configuration takes part in every rung and is never stopped: a winner at step 60
    cannot be compared with a default that was cut at step 20.
    decided: called with (Ray's trial id, step, "asha", "stop", reason).
    """

    def __init__(self, decided: Decided, **options: Any) -> None:
        super().__init__(**options)
        self._decided = decided

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray's decision on a report; Tune does not ask about a trial's last one."""
        action = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP and trial.config["trial"] == trial_id(0):
            action = TrialScheduler.CONTINUE
        if action == TrialScheduler.STOP:
            metric = str(self._metric)
            reason = (
                f"{metric} {result[metric]:.4g} is not among the best "
                f"1/{self._reduction_factor:g} that reached this rung"
            )
            self._decided(trial.trial_id, int(result["global_step"]), "asha", "stop", reason)
        return str(action)


def make_scheduler(spec: SweepSpec, train_records: int | None, decided: Decided) -> TrialScheduler:
    """The scheduler of a spec, with its rungs at evaluation steps."""
    milestones = rungs(spec, train_records)
    if spec.scheduler.type == "none" or not milestones:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    return JournalledASHA(
        decided,
        time_attr=spec.time_attr,
        metric=spec.objective.metric,
        mode=spec.objective.mode,
        grace_period=milestones[0],
        reduction_factor=spec.scheduler.reduction_factor,
        # Trials end by themselves at their budget; ASHA needs an upper end for its rungs only,
        # just above the last one (which `rungs` shows rounded).
        max_t=milestones[0] * spec.scheduler.reduction_factor ** (len(milestones) - 1) * 1.0001,
        stop_last_trials=False,
    )
