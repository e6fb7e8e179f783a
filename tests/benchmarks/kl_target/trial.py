"""One trial of the KL-target benchmark, in a process of its own: prints its rows as one JSON line.

    python -m tests.benchmarks.kl_target.trial '{"setting": …, "estimator": …, "target": …, …}'

The package that trains is the one first on PYTHONPATH, so that two revisions can be compared.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Train what the argument describes."""
    asked = json.loads(sys.argv[1])
    print(json.dumps(asked | run(**asked)))


def run(
    setting: str,
    estimator: str,
    target: float,
    seed: int,
    world: str,
    stories: str,
    max_steps: int | None = None,
    extra: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The metrics of every evaluation of one trial; max_steps 0 judges the start."""
    import torch

    from easyds_tune.errors import DivergedError
    from easyds_tune.spec.load import load_sweep
    from easyds_tune.spec.sweep import SweepSpec, trial_spec
    from easyds_tune.trial.quiet import quiet_libraries
    from easyds_tune.trial.records import read_records
    from easyds_tune.trial.run import run_trial
    from easyds_tune.trial.workbench import Workbench
    from tests.benchmarks.kl_target.settings import overrides

    quiet_libraries()
    torch.set_num_threads(1)
    changed = [*overrides(setting, estimator, Path(world), Path(stories)), *extra]
    sweep = load_sweep("sweeps/ppo.yaml", [*changed, f"algorithm.kl_target={target}"])
    raw = sweep.model_dump() | {"seed": seed, "finals": None}
    if max_steps == 0:
        raw["training"] |= {"max_steps": 0, "eval_steps": None}
    sweep = SweepSpec.model_validate(raw)
    bench = Workbench(sweep, read_records(sweep.data, "ppo", sweep.judge), torch.device("cpu"))
    began = time.perf_counter()
    curve: list[dict[str, float]] = []
    ended = "completed"
    with tempfile.TemporaryDirectory() as folder:
        try:
            for report in run_trial(trial_spec(sweep, "trial", {}), bench, Path(folder)):
                curve.append({"step": report.step, **report.metrics})
        except DivergedError as error:
            ended = f"diverged: {error}"
    return {"curve": curve, "ended": ended, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
