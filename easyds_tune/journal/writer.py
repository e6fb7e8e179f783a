"""Append events to a journal, each on disk before `append` returns. One writer: the driver."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from easyds_tune.journal.events import Entry, Event, SweepEvent, decode_line, encode_line
from easyds_tune.journal.reader import JournalReader
from easyds_tune.journal.replay import SweepRecord, replay


class JournalWriter:
    """An open journal. Use `create`, then `append`; `close` or a ``with`` block ends it."""

    def __init__(self, stream: BinaryIO, next_seq: int) -> None:
        self._stream = stream
        self._next_seq = next_seq

    @classmethod
    def create(cls, path: Path, first: SweepEvent) -> tuple[JournalWriter, Entry]:
        """Start a new journal and return it with its first entry.

        Raises:
            FileExistsError: the journal exists already; nothing is overwritten.
        """
        # Unbuffered: a line reaches the kernel in one write, so only the last can be torn.
        stream = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        writer = cls(stream, next_seq=0)
        entry = writer.append(first)
        _sync_folder(path.parent)
        return writer, entry

    @classmethod
    def open(cls, path: Path) -> tuple[JournalWriter, SweepRecord, int]:
        """Go on with a journal: (writer, record so far, bytes of a torn tail that were cut)."""
        reader = JournalReader(path)
        record = replay(reader)
        stream = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by close()
        if reader.torn_bytes:
            stream.truncate(path.stat().st_size - reader.torn_bytes)
            os.fsync(stream.fileno())
        stream.seek(0, os.SEEK_END)
        return cls(stream, reader.lines), record, reader.torn_bytes

    def append(self, event: Event) -> Entry:
        """Write one event, wait until it is on disk, and return it as a reader will see it.

        Raises:
            ValueError: a number outside `metrics` is not finite; nothing was written.
            OSError: the disk refused; a part of the line may stand at the end of the file.
        """
        line = encode_line(self._next_seq, round(time.time(), 6), event)
        # Read back, so that the driver's own record holds exactly what a replay will hold.
        entry = decode_line(line)
        _write_whole(self._stream, line)
        os.fsync(self._stream.fileno())
        self._next_seq += 1
        return entry

    def close(self) -> None:
        """Close the file; every event is on disk already."""
        self._stream.close()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _write_whole(stream: BinaryIO, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[stream.write(left) :]


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable: fsync of the file alone does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
