"""How a trial can fail: the class of an exception decides what the trial becomes."""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from easyds_tune.errors import DivergedError

FILE = "failure.json"


@dataclass(frozen=True)
class Failure:
    """Why a trial ended early: its final state, the exception's class, message and traceback."""

    state: str
    type: str
    message: str
    traceback: str


def classify(error: BaseException) -> Failure:
    """The failure that an exception stands for: DIVERGED, OUT_OF_MEMORY or FAILED."""
    import torch

    state = "FAILED"
    if isinstance(error, DivergedError):
        state = "DIVERGED"
    elif isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        state = "OUT_OF_MEMORY"
    return Failure(
        state=state,
        type=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )


def write_failure(folder: Path, failure: Failure) -> None:
    """Keep a failure in the trial's folder: for the driver, and for whoever looks for the cause."""
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever sees the file may kill its writer at once: it appears whole.
    unfinished = folder / f".{FILE}.{os.getpid()}"
    unfinished.write_text(
        json.dumps(asdict(failure), ensure_ascii=False, indent=1), encoding="utf-8"
    )
    unfinished.rename(folder / FILE)


def read_failure(folder: Path) -> Failure | None:
    """The failure a worker left, or None where it could not even say why."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Failure(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None


def put_away_failure(folder: Path) -> None:
    """Keep the failure of an earlier attempt as failure-1.json and so on, before the next one.

    What stands in failure.json is then always of the present attempt.
    """
    if (folder / FILE).exists():
        number = 1 + len(list(folder.glob("failure-*.json")))
        (folder / FILE).rename(folder / f"failure-{number}.json")
