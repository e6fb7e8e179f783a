"""One generator an algorithm: it trains and yields a Row at every evaluation.

An algorithm knows nothing of Ray, of folders or of the judge: whoever iterates decides what to
do with a Row, and stops the training by closing the generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from easyds_tune.algorithms.row import Row, TrialInputs
from easyds_tune.algorithms.stopping import StopAsked, never
from easyds_tune.spec.sweep import TrialSpec


def train(
    spec: TrialSpec,
    inputs: TrialInputs,
    resume_from: Path | None = None,
    stop_asked: StopAsked = never,
) -> Iterator[Row]:
    """Train one trial with the algorithm its spec names.

    resume_from: a folder that `Row.save` wrote, to go on from; None starts at step 0.
    stop_asked: asked after every step, and in forward passes that can be taken back. Once it is
    true a partial row follows, the last one.
    """
    if spec.algorithm.type == "sft":
        from easyds_tune.algorithms import sft

        return sft.train(spec, inputs, resume_from, stop_asked)
    if spec.algorithm.type == "rm":
        from easyds_tune.algorithms import rm

        return rm.train(spec, inputs, resume_from, stop_asked)
    if spec.algorithm.type == "ppo":
        from easyds_tune.algorithms import ppo

        return ppo.train(spec, inputs, resume_from, stop_asked)
    from easyds_tune.algorithms import dpo

    return dpo.train(spec, inputs, resume_from, stop_asked)
