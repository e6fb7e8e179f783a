"""Judge a checkpoint anew, as its trial was judged, on what the search has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from easyds_tune.algorithms.batches import held_out_batch
from easyds_tune.algorithms.rm import pair_values
from easyds_tune.algorithms.sft import record_nats
from easyds_tune.errors import DivergedError
from easyds_tune.models.kl import Reference
from easyds_tune.models.lora import give_back
from easyds_tune.models.stack import reference_of, with_saved_policy
from easyds_tune.spec.sweep import TrialSpec
from easyds_tune.trial.checkpoint import verify_checkpoint
from easyds_tune.trial.workbench import Workbench


@dataclass(frozen=True)
class Measured:
    """One number a prompt, or a held-out record, for each metric.

    A metric is their mean, or where `weights` holds it too, their sum over the weights' sum.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    weights: dict[str, list[float]] = field(default_factory=dict)


def rejudge(
    bench: Workbench,
    spec: TrialSpec,
    checkpoint: Path,
    on: Literal["finals", "search"] = "finals",
) -> Measured:
    """Measure a checkpoint of a trial of this workbench's sweep; all finalists alike.

    on: the finals' prompts, draws and held-out records, or the search's own, which give the
    numbers that the trial reported.
    Raises CheckpointError where the checkpoint is damaged, ModelError where it does not fit its
    base, and DivergedError where a number is not finite.
    """
    verify_checkpoint(checkpoint)
    is_finals = on == "finals"
    measured = Measured()
    with bench.borrow() as base:
        judge = bench.finals_judge(base) if is_finals else bench.judge
        held_out = bench.finals_held_out if is_finals else bench.held_out
        with _policy(bench, base, checkpoint) as (policy, reference):
            if judge is not None:
                evaluation = judge.evaluate(policy, reference, spec.judge and spec.judge.batch_size)
                measured.values.update(evaluation.values)
                measured.weights.update(evaluation.weights)
            if held_out is not None:
                pad, size = bench.tokenizer.pad_token_id, held_out_batch(spec)
                if spec.algorithm.type == "rm":
                    measured.values.update(pair_values(policy, held_out, pad, size, bench.device))
                else:
                    nats, tokens = record_nats(policy, held_out, pad, size, bench.device)
                    measured.values["eval/loss"], measured.weights["eval/loss"] = nats, tokens
    broken = [
        name
        for name, values in measured.values.items()
        if not all(math.isfinite(value) for value in values)
    ]
    if broken:
        raise DivergedError(f"{broken[0]} is not finite in the finals")
    return measured


@contextmanager
def _policy(
    bench: Workbench, base: nn.Module, checkpoint: Path
) -> Iterator[tuple[nn.Module, Reference]]:
    """The checkpoint's model, and what its trial started from; the base is plain again after."""
    if not (checkpoint / "adapter_config.json").is_file():
        # Trained whole: the base is what it started from.
        yield bench.load_checkpoint(checkpoint), lambda: _as_it_is(base)
        return
    model = with_saved_policy(base, checkpoint, bench.start)
    yield model, lambda: reference_of(model)
    give_back(model)


@contextmanager
def _as_it_is(model: nn.Module) -> Iterator[nn.Module]:
    yield model
