"""`sweep --simulate`: the real stack, with learning curves where trials would be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from easyds_tune.errors import DataError, SpecError
from easyds_tune.journal.events import FinalistEvent
from easyds_tune.journal.replay import SweepRecord
from easyds_tune.simulation.curves import Curves, Landscape, load_landscape
from easyds_tune.simulation.discrete import checkpoint_path, step_of
from easyds_tune.simulation.finals import finals_per_judge, judge_finalist
from easyds_tune.simulation.space import position
from easyds_tune.spec.sweep import SweepSpec, get_path, trial_spec

if TYPE_CHECKING:
    from easyds_tune.sweep.preflight import CheckedRecords


class SimulatedActor(tune.Trainable):
    """Reports at once what a trial would. No checkpoint is written, whatever the journal names."""

    def setup(
        self, config: dict[str, Any], spec: SweepSpec | None = None, curves: Curves | None = None
    ) -> None:
        """Take the curves, and the first trial."""
        assert spec is not None
        assert curves is not None
        self._spec, self._curves = spec, curves
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Get ready for the next trial."""
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._trial = trial_spec(self._spec, config["trial"], config["params"])
        self._seed = self._spec.seed if config["seed"] is None else config["seed"]
        # Nothing is on disk: a checkpoint is no more than the step in its name.
        self._step = max((step_of(path) for path in config["checkpoints"]), default=0)

    def step(self) -> dict[str, Any]:
        """The report of the next evaluation."""
        trial, every = self._trial, self._trial.budget.eval_steps
        self._step = min(trial.budget.max_steps, (self._step // every + 1) * every)
        return {
            **self._curves.report(trial.params, self._step, self._seed),
            "global_step": self._step,
            "examples": self._step * trial.examples_per_step,
            "checkpoint": checkpoint_path(trial.trial_id, self._step),
            "checkpoint_bytes": 0,
            "checkpoint_digest": "",
            "is_last": self._step >= trial.budget.max_steps,
        }


class SimulatedStage:
    """Trials and finalists are looked up on the curves of a file."""

    def __init__(self, spec: SweepSpec, path: Path) -> None:
        self._spec = spec
        self._curves = curves_for(spec, load_landscape(path))

    def trainable(self) -> Any:
        """Actors that only report."""
        return tune.with_parameters(SimulatedActor, spec=self._spec, curves=self._curves)

    def judge(
        self,
        record: SweepRecord,
        finalists: Sequence[tuple[str, int]],
        tick: Callable[[], object],
    ) -> Iterator[FinalistEvent]:
        """Look them up on fresh prompts."""
        judged = {(event.trial, event.step) for event in record.finalists}
        for name, step in finalists:
            tick()
            if (name, step) in judged:
                continue
            yield judge_finalist(record, self._spec, self._curves, name, step)


def curves_for(spec: SweepSpec, landscape: Landscape) -> Curves:
    """A landscape as the judge of this sweep sees it; what a trial does not set is the spec's.

    Raises KeyError where the landscape has a parameter that is no field of the spec.
    """
    raw = spec.model_dump()
    fixed = {path: get_path(raw, path) for path in landscape.space}
    return Curves(landscape, spec.seed, fixed)


def check_simulation(spec: SweepSpec, path: Path, *, new_folder: bool = True) -> CheckedRecords:
    """Check a spec against the curves that stand in for training; no records are read.

    Raises SpecError with every problem; nothing is started and nothing written.
    """
    from easyds_tune.spec.check import sweep_problems
    from easyds_tune.sweep.preflight import CheckedRecords, folder_problems

    problems = sweep_problems(spec) + (folder_problems(spec) if new_folder else [])
    notes = [f"simulated: nothing was trained, the numbers come from {path}"]
    try:
        landscape = load_landscape(path)
    except DataError as error:
        raise SpecError([*problems, *error.problems]) from error
    problems += _curve_problems(spec, landscape)
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    for searched in spec.search_space:
        if searched not in landscape.space:
            notes.append(f"search_space: {searched} changes nothing on these curves")
    share = finals_per_judge(spec, curves_for(spec, landscape))
    return CheckedRecords(
        train=[], held_out=[], prompts=[], notes=notes, fitting=0, finals_per_judge=share
    )


def _curve_problems(spec: SweepSpec, landscape: Landscape) -> list[str]:
    problems = []
    try:
        fixed = curves_for(spec, landscape).fixed
    except KeyError as error:
        return [f"--simulate: the curves depend on {error}, which is no field of this spec"]
    for path, param in landscape.space.items():
        searched = spec.search_space.get(path)
        for value in [fixed[path]] if searched is None else searched.end_points():
            try:
                position(param, value)
            except (ValueError, TypeError):
                problems.append(
                    f"{path}: the curves know no {value!r}, only {param.model_dump_json()}"
                )
    if spec.training.max_steps is None:
        problems.append("training.max_steps: must be given where curves stand in for training")
    elif spec.training.max_steps > landscape.max_steps:
        problems.append(
            f"training.max_steps: must be at most {landscape.max_steps}, where the curves end, "
            f"got {spec.training.max_steps}"
        )
    if not problems:
        default = spec.default_params()
        known = curves_for(spec, landscape).report(default, 1)
        metrics = [objective.metric for objective in spec.objectives] + list(spec.bounds)
        problems += [
            f"--simulate: {metric} is not among what the curves report: {', '.join(sorted(known))}"
            for metric in dict.fromkeys(metrics)
            if metric not in known
        ]
    return problems
