"""A file system of a few megabytes, mounted for a test; tests skip where that is not allowed."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"


@contextmanager
def small_disk(folder: Path, megabytes: int = 3) -> Iterator[Path]:
    """A disk of its own, mounted at `folder`."""
    folder.mkdir()
    options = f"size={megabytes}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Use the disk up, but for some bytes."""
    with (folder / FILLER).open("wb", buffering=0) as stream:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            stream.writelines(itertools.repeat(b"\0" * 4096))
        stream.truncate(max(0, stream.tell() - leave))


def make_room(folder: Path) -> None:
    """Let go of what `fill` took."""
    (folder / FILLER).unlink()
