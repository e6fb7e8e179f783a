"""Runs trials side by side and keeps what they measured in a file that survives interruptions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
NAMED = ("setting", "estimator", "target", "seed", "max_steps", "extra")
"""What tells one trial from another."""


def run_all(
    asked: Sequence[dict[str, Any]], out: Path, code: Path, processes: int
) -> list[dict[str, Any]]:
    """What each trial measured, in any order; those that `out` holds already do not run again.

    code: the checkout whose `easyds_tune` trains. Raises RuntimeError where a trial fails.
    """
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {_key(row) for row in known}
    waiting = [trial for trial in asked if _key(trial) not in done]
    with ThreadPoolExecutor(processes) as pool, out.open("a", encoding="utf-8") as file:
        for future in as_completed([pool.submit(_run, trial, code) for trial in waiting]):
            row = future.result()
            file.write(json.dumps(row) + "\n")
            file.flush()
            known.append(row)
            print(summary(row), flush=True)
    wanted = {_key(trial) for trial in asked}
    return [row for row in known if _key(row) in wanted]


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row.get(name) for name in NAMED])


def _run(trial: dict[str, Any], code: Path) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{code}:{ROOT}"}
    command = [sys.executable, "-m", "tests.benchmarks.kl_target.trial", json.dumps(trial)]
    done = subprocess.run(
        command, cwd=code, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{trial}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(row: dict[str, Any]) -> str:
    """A trial's course: KL over its target, the judge's reward, the coefficient."""
    lines = [" ".join(str(row[name]) for name in NAMED if row.get(name)), row["ended"]]
    for name, metric, scale in (
        ("KL / target", "train/kl", row["target"]),
        ("reward", "eval/reward", 1.0),
        ("coefficient", "train/kl_coef", 1.0),
    ):
        values = (point.get(metric, 0.0) / scale for point in row["curve"])
        lines.append(f"{name:12} " + " ".join(f"{value:.3g}" for value in values))
    return "\n   ".join(lines)
