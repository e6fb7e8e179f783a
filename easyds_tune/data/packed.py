"""Compressed files: what they hold, unless a few bytes of them stand for gigabytes."""

from __future__ import annotations

import gzip
import io
import zlib

from easyds_tune.errors import DataError

SMALL_BYTES = 2**24
"""Bytes that any compressed file may unpack to."""
MOST_PACKED = 100
"""Times its own size that a larger one may unpack to."""
SMALL_ROWS = 1_000_000
"""Rows that any Parquet file may hold; a larger one has a byte for each at least."""
PARQUET_BATCH = 32
"""Rows read at a time."""
TOO_MUCH = "it unpacks to far more than its size, which no records do"


def _most_bytes(packed: int) -> int:
    """What a compressed file of so many bytes may hold; text packs to a tenth, rarely less."""
    return max(SMALL_BYTES, MOST_PACKED * packed)


def unpacked(data: bytes, name: str) -> bytes:
    """What a gzip file holds; DataError where it is none, or holds far more than its size."""
    most = _most_bytes(len(data))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            whole = stream.read(most + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError([f"{name}: is not a whole gzip file: {error}"]) from error
    if len(whole) > most:
        raise DataError(
            [
                f"{name}: must unpack to at most {most} bytes, {MOST_PACKED} times its size, and "
                "holds more, which no records do; unpack it if they are real"
            ]
        )
    return whole


def parquet_rows(data: bytes, name: str) -> list[dict[str, object]]:
    """The rows of a Parquet file; DataError where it is none, or holds far more than its size."""
    import pyarrow
    import pyarrow.parquet

    left, most_rows = _most_bytes(len(data)), max(SMALL_ROWS, len(data))
    items: list[dict[str, object]] = []
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > left:
            raise ValueError(TOO_MUCH)
        # A few rows at a time: a kilobyte can stand for as many rows as one likes.
        for batch in file.iter_batches(PARQUET_BATCH):
            for column in batch.columns:
                shared = isinstance(column, pyarrow.DictionaryArray)
                left -= (column.dictionary_decode() if shared else column).nbytes
            if left < 0 or max(file.metadata.num_rows, len(items) + len(batch)) > most_rows:
                raise ValueError(TOO_MUCH)
            items += batch.to_pylist()
    # Arrow raises classes of its own, and whatever Python makes of its dates, zones and names.
    except Exception as error:
        raise DataError(
            [f"{name}: is not a Parquet file that can be read: {first_line(error)}"]
        ) from error
    return items


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or else its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
