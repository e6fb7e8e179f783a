from __future__ import annotations

import pytest
from pydantic import ValidationError

from easyds_tune.spec.data import DataSource, DataSpec


def test_a_path_alone_is_a_source_and_one_source_is_a_list() -> None:
    spec = DataSpec.model_validate({"train": "a.jsonl", "eval": {"path": "b.csv"}})
    assert spec.train == (DataSource(path="a.jsonl"),)
    assert spec.eval == (DataSource(path="b.csv"),)
    several = DataSpec.model_validate({"train": ["a.jsonl", {"path": "b.csv", "limit": 3}]})
    assert [source.limit for source in several.train] == [None, 3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": ""}, "at least 1 character"),
        ({"path": "a", "encoding": "utf-9"}, "got 'utf-9'"),
        ({"path": "a", "format": "csv"}, "messages"),
        ({"path": "a", "limit": 0}, "greater than or equal to 1"),
        ({"path": "a", "columns": {"x": "prompt", "y": "prompt"}}, "prompt twice"),
        ({"path": "a", "colums": {}}, "Extra inputs"),
    ],
)
def test_a_wrong_source_is_refused(source: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSource.model_validate(source)
