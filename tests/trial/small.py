"""Small real trials on the bundled models, for the tests of algorithms and trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from easyds_tune.algorithms.stopping import StopAsked, never
from easyds_tune.spec.load import validate
from easyds_tune.spec.sweep import SweepSpec, TrialSpec, trial_spec
from easyds_tune.trial.quiet import quiet_libraries
from easyds_tune.trial.records import SweepRecords, read_records
from easyds_tune.trial.run import Report, run_trial
from easyds_tune.trial.workbench import Workbench

DATA = Path(__file__).parents[2] / "data"
TUTOR = DATA / "models" / "tiny-tutor"
ALGORITHMS = ("dpo", "sft", "rm")
CPU = torch.device("cpu")

Algorithm = Literal["dpo", "sft", "rm"]


def sweep_spec(kind: Algorithm, *, base: Path = TUTOR, **changes: Any) -> SweepSpec:
    """A sweep of three steps on 40 records; `changes` are merged into its sections."""
    trained_on = "sft" if kind == "sft" else "preferences"
    raw: dict[str, Any] = {
        "name": "small",
        "algorithm": {"type": kind, "max_length": 96},
        "model": {
            "model_name_or_path": str(base), "dtype": "float32", "lora_r": 4, "lora_alpha": 8,
        },
        "data": {"train": {"path": str(DATA / "easyds" / f"{trained_on}.jsonl"), "limit": 40}},
        "training": {
            "max_steps": 3, "eval_steps": 2, "learning_rate": 1e-3,
            "per_device_train_batch_size": 4,
        },
    }  # fmt: skip
    if kind != "rm":
        raw["judge"] = {
            "prompts": str(DATA / "easyds" / "judge_prompts.jsonl"), "num_prompts": 4,
            "max_new_tokens": 8,
            "reward": {"model_name_or_path": str(DATA / "models" / "tiny-reward")},
        }  # fmt: skip
    for section, change in changes.items():
        raw[section] = {**raw.get(section, {}), **change} if isinstance(change, dict) else change
    return validate(raw)


class Lab:
    """A sweep's workbench, and trials on it."""

    def __init__(self, spec: SweepSpec, folder: Path) -> None:
        quiet_libraries()
        torch.set_num_threads(1)
        self.spec = spec
        self.folder = folder
        self.records: SweepRecords = read_records(spec.data, spec.algorithm.type, spec.judge)
        self.bench = self.fresh_bench()
        self._count = 0

    def fresh_bench(self) -> Workbench:
        """A workbench that served no trial."""
        return Workbench(self.spec, self.records, CPU)

    def trial(self, steps: int | None = None, **params: Any) -> TrialSpec:
        """A trial; params are dotted fields with `__` for the dot. steps: another budget."""
        dotted = {path.replace("__", "."): value for path, value in params.items()}
        trial = trial_spec(self.spec, "000", dotted, len(self.records.train))
        if steps is None:
            return trial
        budget = trial.budget.model_copy(update={"max_steps": steps})
        return trial.model_copy(update={"budget": budget})

    def start(
        self,
        bench: Workbench | None = None,
        resume_from: Path | None = None,
        stop_asked: StopAsked = never,
        **params: Any,
    ) -> Iterator[Report]:
        """A trial's reports, one at a time, in a folder of its own."""
        self._count += 1
        folder = self.folder / f"{self._count:03d}"
        candidates = [resume_from] if resume_from is not None else []
        trial = self.trial(**params)
        return run_trial(trial, bench or self.bench, folder, candidates, stop_asked)

    def run(
        self, bench: Workbench | None = None, resume_from: Path | None = None, **params: Any
    ) -> list[Report]:
        """A trial run to its end."""
        return list(self.start(bench, resume_from, **params))


def bits(reports: list[Report]) -> list[tuple[int, dict[str, float], bytes]]:
    """All that has to be equal between two runs of one trial: steps, metrics, saved weights."""
    return [
        (
            report.step,
            {
                name: value
                for name, value in report.metrics.items()
                if not name.startswith(("time/", "memory/"))
            },
            weights(report),
        )
        for report in reports
    ]


def weights(report: Report) -> bytes:
    """The bytes of the weights that a report's checkpoint holds."""
    files = sorted(report.checkpoint.path.glob("*.safetensors"))
    assert files
    return b"".join(path.read_bytes() for path in files)
