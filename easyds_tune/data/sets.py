"""Sets of the `datasets` library to rows: a hub's name, a folder of files, or a saved set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easyds_tune.data.columns import Row, named
from easyds_tune.data.packed import first_line
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource

SAVED_SET, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""The files that `save_to_disk` writes for one set, and for one of several splits."""


def read_set(source: DataSource, path: Path, similar: str = "") -> list[Row]:
    """All rows of one split.

    Args:
        path: Where a folder of the name would be.
        similar: What a mistyped name may mean, in words.
    Raises:
        DataError: The set or its split cannot be loaded.
    """
    with _no_progress_bars():
        saved = (path / SAVED_SET).is_file() or (path / SAVED_SPLITS).is_file()
        items = _saved_rows(source, path) if saved else _loaded_rows(source, path, similar)
    split = source.split or "train"
    return [Row(f"{source.path}[{split}] record {n}", item) for n, item in enumerate(items, 1)]


def _saved_rows(source: DataSource, path: Path) -> list[dict[str, Any]]:
    """Rows of a folder that `save_to_disk` wrote."""
    import datasets

    if source.config is not None:
        raise DataError([f"{source.path}: a saved set has no configurations; remove `config`"])
    try:
        found = datasets.load_from_disk(str(path))
        if isinstance(found, datasets.DatasetDict):
            split = source.split or "train"
            if split not in found:
                raise DataError(
                    [
                        f"{source.path}: has no split {split!r}, only {named(found)}; write "
                        f"`split: {next(iter(found), 'train')}`"
                    ]
                )
            found = found[split]
        elif source.split is not None:
            raise DataError([f"{source.path}: is one set without splits; remove `split`"])
        rows: list[dict[str, Any]] = found.to_list()
    except DataError:
        raise
    # Arrow, the JSON of its folder and its features all raise classes of their own here.
    except Exception as error:
        raise DataError(
            [f"{source.path}: is no whole set of save_to_disk: {first_line(error)}; save it again"]
        ) from error
    return rows


def _loaded_rows(source: DataSource, path: Path, similar: str) -> list[dict[str, Any]]:
    import datasets

    split = source.split or "train"
    name = str(path) if path.is_dir() else source.path
    try:
        rows: list[dict[str, Any]] = datasets.load_dataset(
            name, source.config, split=split
        ).to_list()
    # Hub, network, builder and Arrow all raise classes of their own here.
    except Exception as error:
        # "An error occurred while generating the dataset" says nothing; its cause does.
        reasons = [error] if error.__cause__ is None else [error, error.__cause__]
        reason = ", because of ".join(f"{type(one).__name__}: {first_line(one)}" for one in reasons)
        raise DataError(
            [
                f"{source.path}: neither a file here ({path}) nor a set that `datasets` can load "
                f"with config {source.config!r} and split {split!r}: {reason}{similar}; correct "
                "`path`: a file with its ending, a folder, or a hub's owner/name"
            ]
        ) from error
    return rows


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
