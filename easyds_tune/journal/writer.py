"""Append events to a journal, each on disk before `append` returns. One writer: the driver."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from easyds_tune.drafts import remove_dead_drafts
from easyds_tune.errors import SweepError
from easyds_tune.journal.events import Entry, Event, SweepEvent, decode_line, encode_line
from easyds_tune.journal.reader import JournalReader
from easyds_tune.journal.replay import SweepRecord, read_record
from easyds_tune.journal.secrets import without_secrets


class JournalWriter:
    """An open journal. Use `create` or `open`, then `append`; `close` or a ``with`` block ends it.

    Whoever writes holds the sweep's lock. That there is one writer does not rest on it: the open
    file is locked as well, and another writer of the same file is refused.
    """

    def __init__(self, stream: BinaryIO, next_seq: int, whole_bytes: int) -> None:
        self._stream = stream
        self._next_seq = next_seq
        self._whole_bytes = whole_bytes
        self._opened = time.monotonic()

    @property
    def up(self) -> float:
        """Seconds since the journal was opened, whatever becomes of the wall clock."""
        return round(time.monotonic() - self._opened, 3)

    @classmethod
    def create(cls, path: Path, first: SweepEvent) -> tuple[JournalWriter, Entry]:
        """Start a new journal and return it with its first entry.

        Raises:
            FileExistsError: the journal exists already; nothing is overwritten.
        """
        # Unbuffered: a line reaches the kernel in one write, so only the last can be torn.
        stream = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        _claim(stream, path)
        writer = cls(stream, next_seq=0, whole_bytes=0)
        entry = writer.append(first)
        sync_folder(path.parent)
        return writer, entry

    @classmethod
    def open(cls, path: Path) -> tuple[JournalWriter, SweepRecord]:
        """Go on with a journal: cut what is torn off its end, and append behind the last event.

        The record says in `torn_bytes` how much was cut. Nothing is appended.

        Raises:
            JournalError: it is damaged in the middle, or holds no event; nothing was changed.
            SweepError: another writer has it open.
            OSError: the file cannot be opened for writing.
        """
        reader = JournalReader(path)
        record = read_record(reader)
        remove_dead_drafts(path)  # of a repair that was killed
        stream = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by close()
        writer = cls(stream, next_seq=reader.lines, whole_bytes=reader.whole_bytes)
        try:
            _claim(stream, path)
            writer._cut()
        except (OSError, SweepError):
            stream.close()
            raise
        return writer, record

    def append(self, event: Event) -> Entry:
        """Write one event, wait until it is on disk, and return it as a reader will see it.

        After an error nothing was written: a part of a line is cut off again, and the same event
        may be appended once there is room.

        Raises:
            ValueError: a number outside `metrics` is not finite.
            OSError: the disk refused, as when it is full.
        """
        now = round(time.time(), 6)
        line = encode_line(self._next_seq, now, without_secrets(event), self.up)
        # Read back, so that the driver's own record holds exactly what a replay will hold.
        entry = decode_line(line)
        if self._stream.tell() != self._whole_bytes:
            self._cut()  # the last error could not be cleared up at once
        try:
            _write_whole(self._stream, line)
            os.fsync(self._stream.fileno())
        except BaseException:  # a full disk, or an interrupt that comes in between
            self._cut()
            raise
        self._whole_bytes += len(line)
        self._next_seq += 1
        return entry

    def _cut(self) -> None:
        """Let the file end behind its last whole line."""
        self._stream.seek(self._whole_bytes)
        self._stream.truncate()
        os.fsync(self._stream.fileno())

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


def _claim(stream: BinaryIO, path: Path) -> None:
    """Lock the open file until it is closed, however its process ends."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SweepError(f"{path} is being written by another driver; wait for its end") from error


def _write_whole(stream: BinaryIO, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[stream.write(left) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: fsync of a file alone does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
