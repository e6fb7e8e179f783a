"""One trial on a workbench: train, judge, write a checkpoint, report; a generator of reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from transformers.utils import ModelOutput

from easyds_tune import progress
from easyds_tune.algorithms import train
from easyds_tune.algorithms.row import Row
from easyds_tune.algorithms.stopping import StopAsked, Stopped, never, stoppable
from easyds_tune.errors import CheckpointError, DivergedError
from easyds_tune.models.generate import unwrap
from easyds_tune.spec.sweep import TrialSpec
from easyds_tune.trial.checkpoint import (
    Checkpoint,
    remove_leftovers,
    verify_checkpoint,
    write_checkpoint,
)
from easyds_tune.trial.memory import memory_metrics
from easyds_tune.trial.workbench import Workbench


@dataclass(frozen=True)
class Report:
    """What a trial says at an evaluation step, with its checkpoint on disk.

    notes: what a person should know, in words; the first report says where the trial started.
    is_partial: the trial was asked to stop and did, with no metrics, wherever it was.
    """

    step: int
    examples: int
    metrics: dict[str, float]
    checkpoint: Checkpoint
    is_last: bool
    notes: tuple[str, ...] = ()
    is_partial: bool = False


def run_trial(
    spec: TrialSpec,
    bench: Workbench,
    folder: Path,
    resume_from: Sequence[Path] = (),
    stop_asked: StopAsked = never,
    *,
    digests: Mapping[Path, str] | None = None,
) -> Iterator[Report]:
    """Run one trial and yield a report at every evaluation step, the last one included.

    folder: the trial's own folder; checkpoints go under it, and what an earlier attempt left
    half-written there is deleted. Closing the generator ends the trial.
    resume_from: checkpoints of this trial, newest first. It goes on from the first that is whole,
    and from the start where none is; what follows has the bits of the uninterrupted trial. Reports
    come again for the steps after it. digests: of their manifests, where they are known.
    stop_asked: once it is true, one more report comes, a partial one with the checkpoint to go on
    from: after the optimizer step or the forward pass of an evaluation that is being computed; PPO
    completes the updates of a rollout, but not the drawing of one.
    Raises DivergedError at the first evaluation with a non-finite loss or objective.
    """
    remove_leftovers(folder / "checkpoints")
    progress.works_on(spec.trial_id)
    newest, notes = _first_whole(resume_from, digests or {})
    inputs = bench.lend(spec)
    rows = train(spec, inputs, newest.path if newest else None, stop_asked)
    ended_well = False
    try:
        for row in rows:
            metrics = None if row.is_partial else _judged(spec, bench, row, stop_asked)
            is_partial = metrics is None
            if newest is None or newest.step != row.step or not is_partial:
                started = time.perf_counter()
                save = row.save_unjudged if is_partial else row.save
                newest = write_checkpoint(folder / "checkpoints", spec.trial_id, row.step, save)
                wrote = {"time/checkpoint_seconds": time.perf_counter() - started}
                metrics = (
                    None if metrics is None else metrics | wrote | memory_metrics(bench.device)
                )
            report = Report(
                step=row.step,
                examples=row.step * spec.examples_per_step,
                metrics=metrics or {},
                checkpoint=newest,
                is_last=not is_partial and row.step >= spec.budget.max_steps,
                notes=(*notes, *row.notes),
                is_partial=is_partial,
            )
            notes = []
            progress.works_on(None)
            yield report
            progress.works_on(spec.trial_id)
            if not is_partial and not report.is_last and stop_asked():
                # Asked while the trial rested: all there is to save is saved.
                yield replace(report, metrics={}, notes=(), is_partial=True)
                is_partial = True
            if is_partial:
                break
        ended_well = True
    except GeneratorExit:  # stopped early by the scheduler
        ended_well = True
        raise
    finally:
        progress.works_on(None)
        rows.close()
        if ended_well:
            bench.take_back(spec, inputs)


def _first_whole(
    candidates: Sequence[Path], digests: Mapping[Path, str]
) -> tuple[Checkpoint | None, list[str]]:
    """The first checkpoint that a trial can go on from, and what is wrong with those before it."""
    notes = []
    for path in candidates:
        try:
            # DeepSpeed unpickles what it loads.
            return verify_checkpoint(path, to_go_on=True, digest=digests.get(path)), notes
        except CheckpointError as error:
            notes.append(f"not resumed from a damaged checkpoint: {error}")
    if notes:
        notes.append("no checkpoint is whole, so the trial starts from the beginning")
    return None, notes


def _judged(
    spec: TrialSpec, bench: Workbench, row: Row, stop_asked: StopAsked
) -> dict[str, float] | None:
    """The metrics of a row with the judge's; None where a stop was asked for meanwhile."""
    started = time.perf_counter()
    metrics = dict(row.metrics)
    _check_finite(spec, row.step, metrics)
    if bench.judge is not None and spec.judge is not None:
        try:
            with (
                row.policy() as policy,
                stoppable(policy, stop_asked),
                _finite_logits(policy, row.step),
            ):
                size = spec.judge.batch_size
                metrics |= bench.judge.evaluate(policy, row.reference, size).metrics
        except Stopped:
            return None
        _check_finite(spec, row.step, metrics)
    return metrics | {"time/judge_seconds": time.perf_counter() - started}


@contextmanager
def _finite_logits(policy: nn.Module, step: int) -> Iterator[None]:
    """Within the block, logits of the policy that are not finite end the trial as diverged.

    Its losses may still be finite, and no token can be drawn from NaN.
    """

    def check(module: nn.Module, inputs: object, output: ModelOutput) -> None:
        if not output.logits[:, -1].max(dim=-1).values.isfinite().all():
            raise DivergedError(f"the policy's logits are not finite at step {step}")

    hook = unwrap(policy).register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _check_finite(spec: TrialSpec, step: int, metrics: dict[str, float]) -> None:
    watched = {"train/loss", "train/grad_norm", spec.objective.metric}
    broken = [name for name in sorted(watched & metrics.keys()) if not math.isfinite(metrics[name])]
    if broken:
        raise DivergedError(f"{broken[0]} is {metrics[broken[0]]} at step {step}")
