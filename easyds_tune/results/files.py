"""Write derived files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from easyds_tune.drafts import draft_of, remove_dead_drafts


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; its file takes the place of `path` at the end.

    After an exception the temporary file is gone and `path` is as it was.
    """
    remove_dead_drafts(path)
    draft = draft_of(path)
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
