"""What both sides of `ppo_vs_trl.py` are given, and how each measures itself.

Each side is a script and a process of its own: it reads a `Task` from the file named on its
command line, trains, and prints its result as the last line of its output. Standard library only
(torch where there is a GPU): the other side's interpreter does not see this project.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class Task:
    """A PPO run, the same for both sides; a step is one rollout and its updates."""

    model: str
    """Folder of the policy's base, tokenizer included."""
    reward_model: str
    """Folder of a sequence classifier with one output."""
    prompts: str
    """JSON lines with the prompts as text under `input`."""
    prompt_ids: str
    """JSON file with the same prompts as lists of token ids."""
    device: str
    dtype: str
    """Of the frozen weights: float32 or bfloat16."""
    replies: int
    """Replies a step, each to a prompt of its own."""
    reply_length: int
    """Tokens of every reply: no end token stops one."""
    micro_batch: int
    """Replies a forward and backward pass; an epoch is one update with all replies."""
    epochs: int
    steps: int
    """The first one is a warm-up."""
    value_model: str = "trained"
    """TRL's side alone: its value model `trained` whole, as it does, or its trunk `frozen`."""
    learning_rate: float = 1e-4
    lora_r: int = 8
    lora_alpha: int = 16
    seed: int = 0

    @classmethod
    def from_command_line(cls) -> Task:
        """The task in the JSON file that is the script's one argument."""
        return cls(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

    def write(self, path: Path) -> Path:
        """Save it for a side's command line."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path


class Meter:
    """Times steps and remembers the memory; made right after the imports, before any model."""

    def __init__(self, device: str) -> None:
        self._cuda = None
        if device == "cuda":
            import torch

            self._cuda = torch.cuda
        _forget_peak()
        self._after_imports = _resident_mib()
        self._clock: list[float] = []
        self._processor: list[float] = []

    def mark(self) -> None:
        """Call at the end of each step."""
        if self._cuda is not None:
            self._cuda.synchronize()
        self._clock.append(time.perf_counter())
        self._processor.append(time.process_time())

    def print_result(self, **more: object) -> None:
        """Print what was measured: seconds of each step after the first, MiB above the imports."""
        # On a GPU the process's own memory says little: libraries and pinned buffers.
        peak = (
            _peak_resident_mib() - self._after_imports
            if self._cuda is None
            else self._cuda.max_memory_allocated() / MIB
        )
        result = {
            "seconds": _differences(self._clock),
            "processor_seconds": _differences(self._processor),
            "peak_mib": peak,
            "imports_mib": self._after_imports,
            **more,
        }
        print(json.dumps(result), flush=True)


def _differences(marks: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(marks)]


def _resident_mib() -> float:
    return _status_mib("VmRSS")


def _peak_resident_mib() -> float:
    return _status_mib("VmHWM")


def _status_mib(field: str) -> float:
    """A line of Linux's account of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / MIB
    raise SystemExit(f"/proc/{os.getpid()}/status has no {field}; this benchmark needs Linux")


def _forget_peak() -> None:
    """Let the peak count from now on: reading the libraries may have had one of its own."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
