"""Ray's documented way to tune a distributed training: a TorchTrainer inside a Tune function.

Written as Ray's guide "Hyperparameter Tuning with Ray Tune" has it: Tune runs a driver function a
trial, the driver starts a TorchTrainer with one CPU worker, the worker trains with TRL.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import REPOSITORY

DRIVER_CORES = 0.1
"""A driver only waits for its worker: of a trial's core it takes a little, the worker the rest."""


def tune_nested(
    trials: list[dict[str, Any]], rows: list[dict[str, Any]], storage: Path, at_once: int
) -> dict[str, dict[str, Any]]:
    """Train every trial; what each reported last, by trial id.

    trials: dumps of TrialSpec; rows: TRL's conversational pairs; storage: where Ray may write.
    """
    from ray import tune

    storage.mkdir()
    data = storage / "pairs.json"
    data.write_text(json.dumps(rows), encoding="utf-8")
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(drive, data=str(data), storage=str(storage)),
            {"cpu": DRIVER_CORES},
        ),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=tune.RunConfig(name="nested", storage_path=str(storage), verbose=0),
    )
    results = tuner.fit()
    for error in results.errors:
        raise error
    return {result.metrics["trial_id_of_ours"]: result.metrics for result in results}


def drive(config: dict[str, Any], data: str, storage: str) -> None:
    """One trial: start a training run and wait for it."""
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        train_with_trl,
        train_loop_config={"trial": config["trial"], "data": data, "storage": storage},
        scaling_config=train.ScalingConfig(
            num_workers=1, use_gpu=False, resources_per_worker={"CPU": 1 - DRIVER_CORES}
        ),
        run_config=train.RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=storage,
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def train_with_trl(config: dict[str, Any]) -> None:
    """In the training worker: load everything, train, report the loss and the adapter's digest."""
    import os

    import torch
    from bare import bare_trainer
    from datasets import Dataset
    from ray import train
    from transformers import AutoModelForCausalLM, AutoTokenizer

    os.chdir(REPOSITORY)
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    from easyds_tune.spec.sweep import TrialSpec
    from easyds_tune.trial.quiet import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    trial = TrialSpec.model_validate(config["trial"])
    name = trial.model.model_name_or_path
    folder = Path(config["storage"]) / f"trainer-{trial.trial_id}"
    trainer = bare_trainer(
        trial,
        AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32),
        AutoTokenizer.from_pretrained(name),
        Dataset.from_list(json.loads(Path(config["data"]).read_text(encoding="utf-8"))),
        folder,
    )
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    train.report(
        {
            "trial_id_of_ours": trial.trial_id,
            "loss": float(trainer.state.log_history[0]["loss"]),
            "adapter": adapter_digest(folder / "adapter"),
        }
    )


def adapter_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of an adapter's tensors."""
    import hashlib

    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
