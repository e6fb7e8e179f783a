"""Records of different lengths become padded batches in their order."""

from __future__ import annotations

import torch
from datasets import Dataset

from easyds_tune.algorithms.batches import padded_batches


def test_rows_are_padded_on_the_right_and_masked() -> None:
    records = Dataset.from_dict(
        {"input_ids": [[1, 2, 3], [4], [5, 6]], "labels": [[-100, 2, 3], [4], [5, 6]]}
    )
    columns = {"input_ids": 0, "labels": -100}
    first, second = padded_batches(records, columns, 2, torch.device("cpu"))

    assert first["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert first["labels"].tolist() == [[-100, 2, 3], [4, -100, -100]]
    assert first["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert second["input_ids"].tolist() == [[5, 6]]
    assert second["attention_mask"].tolist() == [[1, 1]]


def test_the_padding_value_may_also_be_a_real_token() -> None:
    records = Dataset.from_dict({"chosen_ids": [[0, 0], [0]]})
    (batch,) = padded_batches(records, {"chosen_ids": 0}, 8, torch.device("cpu"))
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
