"""Folders that `datasets` saved, and what is said of the ones it cannot load."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from easyds_tune.data.read import read
from easyds_tune.data.records import Conversation, assistant, user
from easyds_tune.errors import DataError
from easyds_tune.spec.data import DataSource
from tests.data.test_remedies import remedy_in

CHAT = Conversation((user("q"), assistant("a")))
ROWS = {"messages": [[user("q"), assistant("a")]] * 2}


def test_a_set_saved_to_disk_is_read(tmp_path: Path) -> None:
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "set")
    assert read(DataSource(path=str(tmp_path / "set")), "conversations").records == [CHAT] * 2
    for setting in ({"split": "train"}, {"config": "x"}, {"delimiter": ";"}):
        with pytest.raises(DataError, match=f"remove (`{next(iter(setting))}`|it)$"):
            read(DataSource(path=str(tmp_path / "set"), **setting), "conversations")


def test_the_splits_of_a_saved_set_are_read_by_name(tmp_path: Path) -> None:
    one = datasets.Dataset.from_dict(ROWS)
    datasets.DatasetDict({"train_sft": one, "test": one.select([0])}).save_to_disk(tmp_path / "set")
    source = DataSource(path=str(tmp_path / "set"), split="test")
    assert read(source, "conversations").records == [CHAT]
    with pytest.raises(DataError, match="has no split 'train', only 'train_sft', 'test'") as caught:
        read(DataSource(path=str(tmp_path / "set")), "conversations")
    source = DataSource(path=str(tmp_path / "set"), **remedy_in(str(caught.value)))
    assert read(source, "conversations").records == [CHAT] * 2


def test_a_damaged_saved_set_is_an_error(tmp_path: Path) -> None:
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "set")
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "set" / name).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"is no whole set of save_to_disk: .*; save it again"):
        read(DataSource(path=str(tmp_path / "set")), "conversations")


def test_a_name_that_is_no_set_is_told_the_close_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.Dataset.from_dict(ROWS).save_to_disk(tmp_path / "lessons")
    with pytest.raises(DataError, match=r"did you mean lessons\?; correct `path`"):
        read(DataSource(path=str(tmp_path / "lesons")), "conversations")
