"""Tokenizers and folders that the data tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from easyds_tune.data.read import ReadReport, read
from easyds_tune.data.records import Kind
from easyds_tune.spec.data import DataSource
from tests.data.byte_tokenizer import byte_tokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


@pytest.fixture(scope="session")
def stories_tokenizer() -> Any:
    folder = SHARED / "models" / "stories260k"
    if not folder.is_dir():
        pytest.skip("needs ../shared/models/stories260k")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def minimind_tokenizer(shared_data: Path) -> Any:
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "minimind")


@pytest.fixture(scope="session")
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(eos_token="<|im_end|>", pad_token="<|pad|>", bos_token="<|bos|>")


@pytest.fixture
def read_jsonl(tmp_path: Path) -> Callable[..., ReadReport]:
    """Write rows as JSON Lines and read them as the kind that is asked for."""

    def _read(rows: list[dict[str, Any]], kind: Kind, **source: Any) -> ReadReport:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return read(DataSource(path=str(path), **source), kind)

    return _read
