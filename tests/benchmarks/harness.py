"""What the benchmarks share: the bundled spec, medians with their spread, a table, a JSON file.

The benchmarks are scripts (`python tests/benchmarks/warm_workers.py --out FOLDER`), not tests: a
time depends on what else the machine does, so each compares its variants in one run, interleaved,
and states the machine's load beside the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "data" / "models" / "tiny-tutor"
EASYDS = REPOSITORY / "data" / "easyds"
VERSIONED = ("ray", "torch", "transformers", "peft", "trl", "deepspeed")

# Worker processes inherit one thread each, so that trials side by side do not get into each
# other's way; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some measurements, in their own unit."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def row(self) -> list[str]:
        """Its cells in a table, in the order of `SPREAD_HEADER`."""
        return [f"{self.median:.3f}", f"{self.low:.3f}", f"{self.high:.3f}", str(self.count)]


SPREAD_HEADER = ["median", "min", "max", "n"]


@dataclass(frozen=True)
class Target:
    """A promise of the project and what this run measured for it."""

    name: str
    value: float
    limit: float
    rule: Literal["at least", "at most"]

    @property
    def met(self) -> bool:
        """Whether the measured value keeps the promise."""
        return self.value >= self.limit if self.rule == "at least" else self.value <= self.limit


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A command line with the two options that every benchmark has."""
    arguments = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    arguments.add_argument(
        "--out", type=Path, required=True, help="folder that gets the JSON file with all samples"
    )
    arguments.add_argument(
        "--rounds", type=int, default=rounds, help=f"interleaved rounds (default {rounds})"
    )
    return arguments


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Round by round, how many times longer `slow` took than `fast` beside it."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns: the first to the left, the others to the right."""
    rows = [list(header), *map(list, body)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def show_targets(targets: Sequence[Target]) -> None:
    """Print each promise and whether this run kept it."""
    for target in targets:
        verdict = "met" if target.met else "MISSED"
        print(f"{target.name}: {target.value:.3f}, {target.rule} {target.limit:g}: {verdict}")


def write_result(
    folder: Path, name: str, targets: Sequence[Target], measured: dict[str, Any]
) -> Path:
    """Write `folder/name.json`: the machine, the promises and every sample."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    result = {
        "benchmark": name,
        "machine": machine(),
        "targets": [asdict(target) | {"met": target.met} for target in targets],
        **measured,
    }
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)
    return path


def machine() -> dict[str, Any]:
    """What the numbers depend on; `load` is the load average of 1, 5 and 15 minutes."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in VERSIONED},
    }


def bundled_spec(algorithm: str, **changes: Any) -> dict[str, Any]:
    """The raw spec of a sweep of the bundled model, as YAML would give it, without a judge.

    changes: dotted fields, the dots written as `__`, and their values.
    """
    from easyds_tune.spec.sweep import set_path

    rows = EASYDS / ("sft.jsonl" if algorithm == "sft" else "preferences.jsonl")
    spec: dict[str, Any] = {
        "name": f"benchmark-{algorithm}",
        "algorithm": {"type": algorithm, "max_length": 128},
        "model": {
            "model_name_or_path": str(MODEL),
            "dtype": "float32",
            "lora_r": 8,
            "lora_alpha": 16,
        },
        "data": {"train": str(rows)},
        "training": {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 1e-4},
        "deepspeed": "zero2",
        "objective": {"metric": "train/loss", "mode": "min"},
        "scheduler": {"type": "none"},
        "resources": {"gpus_per_trial": 0},
    }
    for field, value in changes.items():
        set_path(spec, field.replace("__", "."), value)
    return spec


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of an earlier commit, for the time of the block."""
    with TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)
