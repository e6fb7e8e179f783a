"""Direct preference optimisation: TRL's DPOTrainer under DeepSpeed, on tokenised pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trl import DPOConfig, DPOTrainer

from easyds_tune.algorithms.row import Row, TrialInputs
from easyds_tune.algorithms.stopping import StopAsked, never
from easyds_tune.algorithms.trl_loop import PairsCountAlike, rows, silence_base_dropout
from easyds_tune.spec.algorithm import DPOSpec
from easyds_tune.spec.sweep import TrialSpec


class _Trainer(PairsCountAlike, DPOTrainer):
    pass


def train(
    spec: TrialSpec,
    inputs: TrialInputs,
    resume_from: Path | None = None,
    stop_asked: StopAsked = never,
) -> Iterator[Row]:
    """Train on `inputs.train` with columns prompt_ids, chosen_ids, rejected_ids.

    The reference is the start of the trial: the adapter switched off, or a frozen copy.
    """
    dpo = spec.algorithm
    assert isinstance(dpo, DPOSpec)
    silence_base_dropout(inputs.base)
    reference = inputs.load_reference() if spec.model.lora_r is None else None
    return rows(
        _Trainer,
        DPOConfig,
        spec,
        inputs,
        config={
            "beta": dpo.beta,
            "loss_type": [dpo.loss_type],
            "label_smoothing": dpo.label_smoothing,
            "use_weighting": dpo.use_weighting,
            "ld_alpha": dpo.ld_alpha,
            "disable_dropout": False,
        },
        trainer={"ref_model": reference},
        reference=reference,
        resume_from=resume_from,
        stop_asked=stop_asked,
    )
