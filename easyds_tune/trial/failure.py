"""How a trial can fail: the class of an exception decides what the trial becomes."""

from __future__ import annotations

import errno
import json
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from easyds_tune.errors import DivergedError
from easyds_tune.redact import redact

FILE = "failure.json"
DISK_FULL = "DiskFull"

_FULL_DISK = (
    "no space left on device",
    "disk quota exceeded",
    # torch.save of a file that takes no more; the errno is lost in its C++.
    "] . unexpected pos ",
    "pytorchstreamwriter failed",
    "basic_ios::clear: iostream error",
)
_DEVICE_MEMORY = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda_error_out_of_memory",
    "cublas_status_alloc_failed",
    "hip out of memory",
)
_HOST_MEMORY = ("can't allocate memory", "cannot allocate memory", "std::bad_alloc")


@dataclass(frozen=True)
class Failure:
    """Why a trial ended early: its final state, the exception's class, message and traceback.

    type: the exception's own class, but the same for all that mean the same: OutOfMemoryError (of
    the device), MemoryError (of the host), DiskFull.
    """

    state: str
    type: str
    message: str
    traceback: str


def classify(error: BaseException) -> Failure:
    """The failure that an exception stands for: DIVERGED, OUT_OF_MEMORY or FAILED; no secrets.

    What the exception came from counts as well: libraries wrap what they meet.
    """
    state, name = "FAILED", type(error).__name__
    for cause in _causes(error):
        if (known := _known(cause)) is not None:
            state, name = known
            break
    return Failure(
        state=state,
        type=name,
        message=_plain(str(error)),
        traceback=_plain("".join(traceback.format_exception(error))),
    )


def _plain(text: str) -> str:
    """The text without secrets, and as UTF-8 can hold it: half of a surrogate pair, which stands in
    the name of a file that is no UTF-8, is written as its escape."""
    return redact(text).encode(errors="backslashreplace").decode()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, and one after another what it was raised from or while handling."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def _known(error: BaseException) -> tuple[str, str] | None:
    """State and class of an exception that says enough by itself."""
    import torch

    if isinstance(error, DivergedError):
        return "DIVERGED", type(error).__name__
    if isinstance(error, torch.OutOfMemoryError):
        return "OUT_OF_MEMORY", "OutOfMemoryError"
    if isinstance(error, MemoryError):
        return "OUT_OF_MEMORY", "MemoryError"
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "FAILED", DISK_FULL
        return ("OUT_OF_MEMORY", "MemoryError") if error.errno == errno.ENOMEM else None
    # Errors of C++ and Rust come as classes of their own, and only their text tells.
    if not isinstance(error, RuntimeError | OSError) and type(error).__name__ != "SafetensorError":
        return None
    text = str(error).lower()
    for signs, known in (
        (_FULL_DISK, ("FAILED", DISK_FULL)),
        (_DEVICE_MEMORY, ("OUT_OF_MEMORY", "OutOfMemoryError")),
        (_HOST_MEMORY, ("OUT_OF_MEMORY", "MemoryError")),
    ):
        if any(sign in text for sign in signs):
            return known
    return None


def write_failure(folder: Path, failure: Failure) -> None:
    """Keep a failure in the trial's folder: for the driver, and for whoever looks for the cause.

    On a disk without room it is kept without its traceback, or not at all; that raises nothing.
    """
    whole = replace(failure, message=_plain(failure.message), traceback=_plain(failure.traceback))
    brief = replace(whole, message=whole.message[:500], traceback="")
    for kept in (whole, brief):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / FILE, json.dumps(asdict(kept), ensure_ascii=False, indent=1))
            return


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the driver may look at any time."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


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
    (folder / f".{FILE}.new").unlink(missing_ok=True)  # of a worker that was killed
    if (folder / FILE).exists():
        number = 1 + len(list(folder.glob("failure-*.json")))
        (folder / FILE).rename(folder / f"failure-{number}.json")
