"""Real sweeps in a folder of their own, started as a person starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).parents[2] / "data"
MARK = "EASYDS_TEST_SWEEP"
COMMAND = Path(sys.executable).with_name("easyds-tune")
"""The installed script: `python -m` would add the working directory to the path."""


def spec_file(folder: Path, name: str, **changes: Any) -> Path:
    """A DPO spec of four trials on the bundled models, written as YAML."""
    raw: dict[str, Any] = {
        "algorithm": {"type": "dpo", "max_length": 96},
        "model": {
            "model_name_or_path": str(DATA / "models" / "tiny-tutor"), "dtype": "float32",
            "lora_r": 4, "lora_alpha": 8,
        },
        "data": {"train": {"path": str(DATA / "easyds" / "preferences.jsonl"), "limit": 64}},
        "judge": {
            "prompts": str(DATA / "easyds" / "judge_prompts.jsonl"), "num_prompts": 4,
            "max_new_tokens": 8,
            "reward": {"model_name_or_path": str(DATA / "models" / "tiny-reward")},
        },
        "training": {
            "max_steps": 3, "eval_steps": 2, "learning_rate": 1e-3,
            "per_device_train_batch_size": 4, "lr_scheduler_type": "linear",
        },
        "search_space": {
            "training.learning_rate": [1e-3, 1e30],
            # Needs label smoothing, which is not given: TRL says so once the trial runs.
            "algorithm.loss_type": ["sigmoid", "exo_pair"],
        },
        "search": {"num_trials": 4},
        "scheduler": {"type": "none"},
        "resources": {"gpus_per_trial": 0, "max_concurrent": 2},
    }  # fmt: skip
    for section, change in changes.items():
        raw[section] = {**raw.get(section, {}), **change} if isinstance(change, dict) else change
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    return path


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `easyds-tune` in `folder`, and the mark that all its processes carry.

    It leads a process group of its own.
    """
    mark = uuid.uuid4().hex
    with (folder / "output.txt").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(COMMAND), *arguments],
            cwd=folder,
            env=os.environ | {MARK: mark, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process, mark
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pid in marked_processes(mark):
                os.kill(pid, 9)


def marked_processes(mark: str) -> list[int]:
    """The living processes that inherited a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes() and not is_zombie(folder):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something, or fail and say for what."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


def wait_until_all_end(mark: str, seconds: float = 15) -> None:
    """Wait until no process with a mark is left, or fail and name those that are."""
    end = time.monotonic() + seconds
    while left := marked_processes(mark):
        assert time.monotonic() < end, f"after {seconds:g} s there are still {commands(left)}"
        time.sleep(0.1)


def commands(pids: list[int]) -> dict[int, str]:
    """The command line of each process that still runs, and the state it is in."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            folder = Path("/proc") / str(pid)
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found[pid] = f"{state} {words[:200]}"
    return found
