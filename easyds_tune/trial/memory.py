"""How much memory a worker holds: the process's own, and the GPU's at its peak."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import torch

MIB = 2**20


def resident_mib() -> float:
    """Resident memory of this process in MiB; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def return_free_memory() -> None:
    """Give what this process has freed back to the system, where the C library can (glibc).

    It keeps freed pages for later; a worker of many trials would seem to grow with its largest.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def memory_metrics(device: torch.device) -> dict[str, float]:
    """`memory/resident_mib`, and on a GPU `memory/gpu_peak_mib` since the last call."""
    metrics = {"memory/resident_mib": resident_mib()}
    if device.type == "cuda":
        metrics["memory/gpu_peak_mib"] = torch.cuda.max_memory_allocated(device) / MIB
        torch.cuda.reset_peak_memory_stats(device)
    return metrics
