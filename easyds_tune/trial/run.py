"""One trial on a workbench: train, judge, write a checkpoint, report; a generator of reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from transformers.utils import ModelOutput

from easyds_tune.algorithms import train
from easyds_tune.errors import DivergedError
from easyds_tune.models.generate import unwrap
from easyds_tune.spec.sweep import TrialSpec
from easyds_tune.trial.checkpoint import Checkpoint, verify_checkpoint, write_checkpoint
from easyds_tune.trial.memory import memory_metrics
from easyds_tune.trial.workbench import Workbench


@dataclass(frozen=True)
class Report:
    """What a trial says at an evaluation step, with its checkpoint on disk."""

    step: int
    examples: int
    metrics: dict[str, float]
    checkpoint: Checkpoint
    is_last: bool
    is_partial: bool = False
    notes: list[str] = field(default_factory=list)


def run_trial(
    spec: TrialSpec,
    bench: Workbench,
    folder: Path,
    resume_from: Sequence[Path] = (),
    stop_asked: Callable[[], bool] = lambda: False,
) -> Iterator[Report]:
    """Run one trial and yield a report at every evaluation step, the last one included.

    folder: the trial's own folder; checkpoints go under it. Closing the generator ends the trial.
    resume_from: a checkpoint of this trial; what follows has the bits of the uninterrupted trial.
    Raises DivergedError at the first evaluation with a non-finite loss or objective, and
    CheckpointError where `resume_from` is damaged.
    """
    start = resume_from[0] if resume_from else None
    if start is not None:
        verify_checkpoint(start)  # DeepSpeed unpickles what it loads
    inputs = bench.lend(spec)
    rows = train(spec, inputs, start)
    ended_well = False
    try:
        for row in rows:
            started = time.perf_counter()
            metrics = dict(row.metrics)
            _check_finite(spec, row.step, metrics)
            if bench.judge is not None:
                with row.policy() as policy, _finite_logits(policy, row.step):
                    metrics |= bench.judge.evaluate(policy, row.reference).metrics
                _check_finite(spec, row.step, metrics)
            metrics["time/judge_seconds"] = time.perf_counter() - started
            started = time.perf_counter()
            checkpoint = write_checkpoint(folder / "checkpoints", spec.trial_id, row.step, row.save)
            metrics["time/checkpoint_seconds"] = time.perf_counter() - started
            metrics |= memory_metrics(bench.device)
            yield Report(
                step=row.step,
                examples=row.step * spec.examples_per_step,
                metrics=metrics,
                checkpoint=checkpoint,
                is_last=row.step >= spec.budget.max_steps,
            )
        ended_well = True
    except GeneratorExit:  # stopped early by the scheduler
        ended_well = True
        raise
    finally:
        rows.close()
        if ended_well:
            bench.take_back(spec, inputs)


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
