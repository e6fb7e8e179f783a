"""A sweep as Ray's own guides write it: OptunaSearch, ASHAScheduler, Tuner and Tuner.restore.

What the grid of faults compares with: one small torch model a trial, a checkpoint at every report.
The harness gives the settings as JSON: `python ray_alone.py '{"folder": ..., "name": ...}'`. A
script of its own: it imports nothing of the project.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
"""What the trials and the driver say they did: a line a start, a report, a fault, a result."""


@dataclass
class Settings:
    """One run: where, how many trials of how many steps, and what goes wrong.

    fault: {"kind", "step"}: once, in the first trial that gets to the step; with "lr_above" in
    every trial of such a learning rate, each time it gets there.
    seconds: that a step takes. checkpoint_bytes: weight of a checkpoint besides the model.
    kill_driver_after: trials that ended, until the driver kills itself just after Tune was told.
    """

    folder: str
    name: str
    samples: int = 8
    slots: int = 1
    steps: int = 9
    seconds: float = 0.1
    seed: int = 0
    restore: bool = False
    scheduler: str = "asha"
    storage: str = "memory"
    fault: dict[str, Any] = field(default_factory=dict)
    max_failures: int = 0
    reuse_actors: bool = True
    checkpoint_bytes: int = 0
    kill_driver_after: int = 0

    @property
    def log(self) -> str:
        """Where Ray does not look."""
        return os.environ["FAULTS_LOG"]


def write_log(log: str, **what: Any) -> None:
    """One line, in one write."""
    line = json.dumps({"time": time.time(), "pid": os.getpid(), **what}) + "\n"
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def train(config: dict[str, Any], settings: Settings, log: str) -> None:
    """Fit a line with torch; report and checkpoint at every step."""
    import torch
    from ray import tune

    torch.manual_seed(settings.seed)
    trial = tune.get_context().get_trial_id()
    model = torch.nn.Linear(16, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    inputs = torch.randn(256, 16)
    targets = inputs.sum(dim=1, keepdim=True)
    first = 1
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            write_log(log, event="load", trial=trial, path=checkpoint.path)
            state = torch.load(Path(folder) / "state.pt")
        model.load_state_dict(state["model"])
        first = state["step"] + 1
    write_log(log, event="start", trial=trial, config=config, step=first)
    for step in range(first, settings.steps + 1):
        fault = due(settings, log, config, trial, step)
        if fault is not None:
            misbehave(fault)
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(settings.seconds)
        value = float("nan") if fault == "nan" else loss.item()
        metrics = {"loss": value, "kl": 0.01 * step, "global_step": step}
        if fault == "nan-kl":
            metrics["kl"] = float("nan")
        with tempfile.TemporaryDirectory() as folder:
            torch.save({"model": model.state_dict(), "step": step}, Path(folder) / "state.pt")
            if settings.checkpoint_bytes:
                (Path(folder) / "rest.bin").write_bytes(os.urandom(settings.checkpoint_bytes))
            # Before it is told: a trial that is stopped does not come back from its report.
            write_log(log, event="report", trial=trial, config=config, step=step, loss=value)
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def due(settings: Settings, log: str, config: dict[str, Any], trial: str, step: int) -> str | None:
    """The kind of fault whose moment has come, if any."""
    fault = settings.fault
    if not fault or step < fault["step"]:
        return None
    if "lr_above" in fault:
        if config["lr"] <= fault["lr_above"]:
            return None
    else:
        try:
            Path(f"{log}.once").touch(exist_ok=False)
        except FileExistsError:
            return None
    write_log(log, event="fault", trial=trial, step=step)
    return str(fault["kind"])


def misbehave(fault: str) -> None:
    """Die, hang, run out of memory, eat the machine's, or lose the newest checkpoint and die."""
    import torch
    from ray import tune

    if fault == "damage":
        newest = tune.get_checkpoint()
        assert newest is not None
        state = Path(newest.path) / "state.pt"
        os.truncate(state, state.stat().st_size // 2)
    if fault in ("sigkill", "damage"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "sigstop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "sleep":
        time.sleep(3600)
    elif fault == "oom":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    elif fault == "greed":
        greed = bytearray(int(os.environ["FAULTS_GREED"]))
        greed[::4096] = b"x" * len(greed[::4096])
        time.sleep(10)


def watch(settings: Settings) -> None:
    """Log what the scheduler knows at each result; kill the driver where it was asked to.

    The classes are changed, not their objects: those are pickled, and come back from a restore.
    """
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    take_result = AsyncHyperBandScheduler.on_trial_result
    take_end = OptunaSearch.on_trial_complete
    ended = 0

    def on_trial_result(self: Any, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = take_result(self, controller, trial, result)
        at_rungs = [len(seen) for b in self._brackets for _, seen in b._rungs]
        row = {"step": result["global_step"], "decision": decision, "at_rungs": at_rungs}
        write_log(settings.log, event="result", trial=trial.trial_id, **row)
        return str(decision)

    def on_trial_complete(self: Any, trial_id: str, *args: Any, **more: Any) -> None:
        nonlocal ended
        take_end(self, trial_id, *args, **more)
        ended += 1
        write_log(settings.log, event="told", trial=trial_id)
        if ended == settings.kill_driver_after and not settings.restore:
            os.kill(os.getpid(), signal.SIGKILL)

    AsyncHyperBandScheduler.on_trial_result = on_trial_result
    OptunaSearch.on_trial_complete = on_trial_complete


def make_searcher(settings: Settings) -> Any:
    """Optuna's sampler, its study in memory, in SQLite or in Optuna's own journal file."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from ray.tune.search.optuna import OptunaSearch

    storage: Any = None
    if settings.storage == "sqlite":
        storage = RDBStorage(f"sqlite:///{settings.log}.db")
    elif settings.storage == "journal":
        storage = JournalStorage(JournalFileBackend(f"{settings.log}.optuna"))
    return OptunaSearch(seed=settings.seed, storage=storage)


def make_tuner(settings: Settings) -> Any:
    """A new sweep."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    scheduler = (
        ASHAScheduler(max_t=settings.steps, grace_period=1, reduction_factor=3)
        if settings.scheduler == "asha"
        else FIFOScheduler()
    )
    return tune.Tuner(
        tune.with_parameters(train, settings=settings, log=settings.log),
        param_space={"lr": tune.loguniform(1e-4, 0.5), "momentum": tune.uniform(0, 0.9)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=make_searcher(settings),
            scheduler=scheduler,
            num_samples=settings.samples,
            reuse_actors=settings.reuse_actors,
            max_concurrent_trials=settings.slots,
        ),
        run_config=tune.RunConfig(
            name=settings.name,
            storage_path=settings.folder,
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            verbose=0,
        ),
    )


def main() -> int:
    """Run or restore, and log what came out of it."""
    settings = Settings(**json.loads(sys.argv[1]))
    import ray
    from ray import tune

    ray.init(num_cpus=settings.slots, include_dashboard=False, log_to_driver=False)
    watch(settings)
    if settings.restore:
        tuner = tune.Tuner.restore(
            str(Path(settings.folder) / settings.name),
            tune.with_parameters(train, settings=settings, log=settings.log),
            resume_errored=True,
        )
    else:
        tuner = make_tuner(settings)
    write_log(settings.log, event="fit")
    results = tuner.fit()
    for result in results:
        metrics = result.metrics or {}
        row = {"step": metrics.get("global_step"), "error": repr(result.error)[:300]}
        write_log(settings.log, event="outcome", config=result.config, **row)
    print(f"done: {len(results)} results, {len(results.errors)} errors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
