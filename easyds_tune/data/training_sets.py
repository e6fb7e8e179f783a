"""Tokenised records as the `datasets.Dataset` that each algorithm takes as it is.

Encoding does not depend on a length limit, so one encoded set serves every trial; `fit_*` cuts it
to a trial's `max_length` in milliseconds, by TRL's own rules. Nothing is cached on disk.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from easyds_tune.data.records import Conversation, PlainText, PreferencePair, Prompt
from easyds_tune.data.tokenise import IGNORED, Encoder, Ids

_TOKENS = pa.list_(pa.int32())
_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))


class Fitted(NamedTuple):
    """The rows that a length limit leaves, and how many it dropped for which reason."""

    dataset: datasets.Dataset
    dropped: Counter[str]


def sft_dataset(
    records: Sequence[Conversation | PlainText], encoder: Encoder, max_length: int | None = None
) -> Fitted:
    """Columns `input_ids` and `labels` for TRL's SFTTrainer."""
    return fit_sft(_dataset(encoder.conversations(records), ("input_ids", "labels")), max_length)


def dpo_dataset(
    records: Sequence[PreferencePair], encoder: Encoder, max_length: int | None = None
) -> Fitted:
    """Columns `prompt_ids`, `chosen_ids` and `rejected_ids` for TRL's DPO collator."""
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    return fit_dpo(_dataset(encoder.pairs(records), columns), max_length)


def reward_dataset(
    records: Sequence[PreferencePair], encoder: Encoder, max_length: int | None = None
) -> Fitted:
    """Columns `chosen_ids` and `rejected_ids`, each prompt and reply, for TRL's RewardTrainer."""
    rows = [
        {
            "chosen_ids": pair["prompt_ids"] + pair["chosen_ids"],
            "rejected_ids": pair["prompt_ids"] + pair["rejected_ids"],
        }
        for pair in encoder.pairs(records)
    ]
    return fit_reward(_dataset(rows, ("chosen_ids", "rejected_ids")), max_length)


def ppo_dataset(
    records: Sequence[Prompt], encoder: Encoder, max_length: int | None = None
) -> Fitted:
    """Columns `prompt_ids`, to generate from, and `messages`, for a reward to read."""
    chats = [record.messages for record in records]
    rows = [{"prompt_ids": ids} for ids in encoder.prompts(chats)]
    dataset = _dataset(rows, ("prompt_ids",))
    messages = pa.array([list(chat) for chat in chats], _MESSAGES)
    table = _table(dataset).append_column("messages", messages)
    return fit_ppo(_from_table(table, dataset._fingerprint), max_length)


def fit_ppo(dataset: datasets.Dataset, max_length: int | None) -> Fitted:
    """Drop prompts of more than `max_length` tokens: a cut question is another question."""
    if max_length is None:
        return Fitted(dataset, Counter())
    table = _table(dataset)
    keep = pc.less_equal(pc.list_value_length(table["prompt_ids"]), max_length)
    return _kept(table, keep, f"longer than max_prompt_length {max_length}", dataset)


def fit_sft(dataset: datasets.Dataset, max_length: int | None) -> Fitted:
    """Keep the first `max_length` tokens; drop rows that are left without a trained token."""
    if max_length is None:
        return Fitted(dataset, Counter())
    table = _table(dataset)
    cut = pa.table(
        {
            name: pc.list_slice(table[name], 0, max_length).cast(_TOKENS)
            for name in ("input_ids", "labels")
        }
    )
    labels = cut["labels"].combine_chunks()
    trained = pc.not_equal(pc.list_flatten(labels), IGNORED)
    with_trained = pc.unique(pc.list_parent_indices(labels).filter(trained))
    keep = pc.is_in(pa.array(range(len(cut)), pa.int64()), value_set=with_trained)
    return _kept(cut, keep, f"prompt fills max_length {max_length}", dataset)


def fit_dpo(dataset: datasets.Dataset, max_length: int | None) -> Fitted:
    """Drop pairs whose prompt alone fills `max_length`; TRL's collator cuts the others' replies."""
    if max_length is None:
        return Fitted(dataset, Counter())
    table = _table(dataset)
    keep = pc.less(pc.list_value_length(table["prompt_ids"]), max_length)
    return _kept(table, keep, f"prompt fills max_length {max_length}", dataset)


def fit_reward(dataset: datasets.Dataset, max_length: int | None) -> Fitted:
    """Drop pairs with a side over `max_length` tokens, as TRL does: a cut reply has no end."""
    if max_length is None:
        return Fitted(dataset, Counter())
    table = _table(dataset)
    keep = pc.and_(
        *(
            pc.less_equal(pc.list_value_length(table[name]), max_length)
            for name in ("chosen_ids", "rejected_ids")
        )
    )
    return _kept(table, keep, f"longer than max_length {max_length}", dataset)


def _dataset(rows: Sequence[dict[str, Ids]], columns: Sequence[str]) -> datasets.Dataset:
    table = pa.table({name: pa.array([row[name] for row in rows], _TOKENS) for name in columns})
    digest = hashlib.sha256()
    for name in columns:
        for buffer in table[name].combine_chunks().buffers():
            if buffer is not None:
                digest.update(buffer)
    return _from_table(table, digest.hexdigest()[:16])


def _from_table(table: pa.Table, fingerprint: str) -> datasets.Dataset:
    # With a fingerprint of our own, `datasets` need not pickle the whole table to find one.
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint)


def _table(dataset: datasets.Dataset) -> pa.Table:
    assert dataset._indices is None, "fit_* takes an encoded set as it was built"
    return dataset.data.table


def _kept(table: pa.Table, keep: pa.Array, reason: str, source: datasets.Dataset) -> Fitted:
    kept = table.filter(keep)
    missing = len(table) - len(kept)
    name = hashlib.sha256(f"{source._fingerprint} {reason}".encode()).hexdigest()[:16]
    return Fitted(_from_table(kept, name), Counter({reason: missing} if missing else {}))
