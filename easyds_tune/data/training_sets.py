"""Tokenised records as the `datasets.Dataset` that each algorithm takes as it is.

Encoding does not depend on a length limit, so one encoded set serves every trial; `fit` leaves out
or cuts what is longer than a trial's `max_length`, in milliseconds and by the trial's `truncation`.
No trainer cuts anything after that. Nothing is cached on disk.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from easyds_tune.data.records import Conversation, PlainText, PreferencePair, Prompt
from easyds_tune.data.tokenise import IGNORED, Encoder, Ids
from easyds_tune.spec.algorithm import (
    AlgorithmSpec,
    DPOSpec,
    PPOSpec,
    RewardModelSpec,
    SFTSpec,
    Truncation,
)

_TOKENS = pa.list_(pa.int32())
_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
_PROMPT, _OPENING, _CUTTABLE = "prompt_length", "opening_length", "cuttable_length"
"""Columns of an encoded set that `fit` reads and removes: tokens before the last reply, tokens at
the very start that a cut keeps (BOS or CLS), and the position before which a cut has to end."""
ASKED_TOKENS = 8
"""Tokens of the prompt that a cut has to leave, or a quarter of the prompt where that is less;
beside what the template writes between a question and its reply."""

Numbers = NDArray[np.int64]


class Fitted(NamedTuple):
    """The rows that a length limit leaves, and what it did to the others.

    dropped: reason -> rows left out. cut: what was cut (reply, chosen, prompt, ...) -> rows.
    """

    dataset: datasets.Dataset
    dropped: Counter[str]
    cut: Counter[str]


def fit(dataset: datasets.Dataset, algorithm: AlgorithmSpec) -> Fitted:
    """An encoded set within the length limit of a trial's algorithm."""
    match algorithm:
        case PPOSpec():
            return fit_ppo(dataset, algorithm.max_prompt_length)
        case SFTSpec():
            return fit_sft(dataset, algorithm.max_length, algorithm.truncation)
        case RewardModelSpec():
            return fit_reward(dataset, algorithm.max_length, algorithm.truncation)
        case DPOSpec():
            return fit_dpo(dataset, algorithm.max_length, algorithm.truncation)


def sft_dataset(
    records: Sequence[Conversation | PlainText],
    encoder: Encoder,
    max_length: int | None = None,
    truncation: Truncation = "drop",
) -> Fitted:
    """Columns `input_ids` and `labels` for TRL's SFTTrainer."""
    rows = encoder.conversations(records)
    table = _tokens(rows, ("input_ids", "labels"))
    openings = [encoder.opening_length(row["input_ids"]) for row in rows]
    # A plain text has no prompt: all of it is what a model is to write.
    prompts = [
        0 if isinstance(record, PlainText) else _before_last_reply(row["labels"])
        for record, row in zip(records, rows, strict=True)
    ]
    table = _with_lengths(table, prompts, openings, encoder.reply_start_length)
    return fit_sft(_dataset(table), max_length, truncation)


def dpo_dataset(
    records: Sequence[PreferencePair],
    encoder: Encoder,
    max_length: int | None = None,
    truncation: Truncation = "drop",
) -> Fitted:
    """Columns `prompt_ids`, `chosen_ids` and `rejected_ids` for TRL's DPO collator."""
    rows = encoder.pairs(records)
    table = _tokens(rows, ("prompt_ids", "chosen_ids", "rejected_ids"))
    return fit_dpo(_dataset(_with_prompts(table, rows, encoder)), max_length, truncation)


def reward_dataset(
    records: Sequence[PreferencePair],
    encoder: Encoder,
    max_length: int | None = None,
    truncation: Truncation = "drop",
) -> Fitted:
    """Columns `chosen_ids` and `rejected_ids`, each prompt and reply, for TRL's RewardTrainer.

    And `margin`, where a pair has one; the others then have 0.
    """
    pairs = encoder.pairs(records)
    rows = [
        {
            "chosen_ids": pair["prompt_ids"] + pair["chosen_ids"],
            "rejected_ids": pair["prompt_ids"] + pair["rejected_ids"],
        }
        for pair in pairs
    ]
    table = _with_prompts(_tokens(rows, ("chosen_ids", "rejected_ids")), pairs, encoder)
    margins = [record.margin for record in records]
    if any(margin is not None for margin in margins):
        column = pa.array([margin or 0.0 for margin in margins], pa.float32())
        table = table.append_column("margin", column)
    return fit_reward(_dataset(table), max_length, truncation)


def ppo_dataset(
    records: Sequence[Prompt], encoder: Encoder, max_length: int | None = None
) -> Fitted:
    """Columns `prompt_ids`, to generate from, and `messages`, for a reward to read."""
    chats = [record.messages for record in records]
    rows = [{"prompt_ids": ids} for ids in encoder.prompts(chats)]
    dataset = _dataset(_tokens(rows, ("prompt_ids",)))
    messages = pa.array([list(chat) for chat in chats], _MESSAGES)
    table = _table(dataset).append_column("messages", messages)
    return fit_ppo(_from_table(table, dataset._fingerprint), max_length)


def fit_ppo(dataset: datasets.Dataset, max_length: int | None) -> Fitted:
    """Drop prompts of more than `max_length` tokens: a cut question is another question."""
    if max_length is None:
        return Fitted(dataset, Counter(), Counter())
    table = _table(dataset)
    keep = _lengths(table, "prompt_ids") <= max_length
    return _kept(table, keep, f"longer than max_prompt_length {max_length}", dataset)


def fit_sft(
    dataset: datasets.Dataset, max_length: int | None, truncation: Truncation = "drop"
) -> Fitted:
    """Rows of at most `max_length` tokens, each with a trained token.

    Cut rows count as `reply` where they lost their end, as `prompt` where they lost the beginning.
    """
    if max_length is None:
        return Fitted(dataset, Counter(), Counter())
    table = _table(dataset)
    lengths = _lengths(table, "input_ids")
    too_long = lengths > max_length
    columns = ("input_ids", "labels")
    if truncation == "drop":
        return _kept(table, ~too_long, f"longer than max_length {max_length}", dataset)
    if truncation == "keep_start":
        cut = _without(table, columns, np.full_like(lengths, max_length), lengths)
        keep, reason, what = _has_trained(cut), f"prompt fills max_length {max_length}", "reply"
    else:
        opening, prompts = _numbers(table, _OPENING), _numbers(table, _PROMPT)
        end = opening + lengths - max_length
        cut = _without(table, columns, opening, end)
        keep = ~too_long | (prompts == 0) | (end <= _numbers(table, _CUTTABLE))
        reason, what = f"no room for the prompt in max_length {max_length}", "prompt"
    fitted = _kept(cut, keep, reason, dataset)
    return fitted._replace(cut=_counted({what: keep & too_long}))


def fit_dpo(
    dataset: datasets.Dataset, max_length: int | None, truncation: Truncation = "drop"
) -> Fitted:
    """Pairs of which prompt and reply have at most `max_length` tokens, on both sides."""
    if max_length is None:
        return Fitted(dataset, Counter(), Counter())
    table = _table(dataset)
    prompts = _lengths(table, "prompt_ids")
    chosen, rejected = (_lengths(table, name) for name in ("chosen_ids", "rejected_ids"))
    if truncation != "keep_start":
        return _fit_pairs(dataset, ("prompt_ids",), chosen, rejected, max_length, truncation)
    room = max_length - prompts
    cut = _without(table, ("chosen_ids",), room, chosen)
    cut = _without(cut, ("rejected_ids",), room, rejected)
    keep = room > 0
    fitted = _kept(cut, keep, f"prompt fills max_length {max_length}", dataset)
    sides = {"chosen": keep & (chosen > room), "rejected": keep & (rejected > room)}
    one = sides["chosen"] ^ sides["rejected"]
    return fitted._replace(cut=_counted({**sides, "only one side": one}))


def fit_reward(
    dataset: datasets.Dataset, max_length: int | None, truncation: Truncation = "drop"
) -> Fitted:
    """Pairs with at most `max_length` tokens on both sides; a reply is never cut."""
    if max_length is None:
        return Fitted(dataset, Counter(), Counter())
    table = _table(dataset)
    columns = ("chosen_ids", "rejected_ids")
    chosen, rejected = (_lengths(table, name) - _numbers(table, _PROMPT) for name in columns)
    return _fit_pairs(dataset, columns, chosen, rejected, max_length, truncation)


def _fit_pairs(
    dataset: datasets.Dataset,
    with_prompt: Sequence[str],
    chosen: Numbers,
    rejected: Numbers,
    max_length: int,
    truncation: Truncation,
) -> Fitted:
    """Leave out pairs that are too long, or cut the beginning of their prompt.

    with_prompt: the columns that hold it. chosen, rejected: tokens of each reply.
    """
    table = _table(dataset)
    prompts, opening = _numbers(table, _PROMPT), _numbers(table, _OPENING)
    surplus = prompts + np.maximum(chosen, rejected) - max_length
    if truncation == "drop":
        return _kept(table, surplus <= 0, f"longer than max_length {max_length}", dataset)
    cut = _without(table, with_prompt, opening, opening + surplus)
    keep = (surplus <= 0) | (opening + surplus <= _numbers(table, _CUTTABLE))
    fitted = _kept(cut, keep, f"no room for the prompt in max_length {max_length}", dataset)
    return fitted._replace(cut=_counted({"prompt": keep & (surplus > 0)}))


def _before_last_reply(labels: Ids) -> int:
    """Tokens before the trained ones at the end of a conversation."""
    position = len(labels)
    while position and labels[position - 1] != IGNORED:
        position -= 1
    return position


def _has_trained(table: pa.Table) -> NDArray[np.bool_]:
    """Which rows have a trained token."""
    labels = table["labels"].combine_chunks()
    trained = pc.not_equal(pc.list_flatten(labels), IGNORED)
    rows = pc.unique(pc.list_parent_indices(labels).filter(trained)).to_numpy()
    return np.isin(np.arange(len(table)), rows)


def _without(table: pa.Table, columns: Sequence[str], start: Numbers, end: Numbers) -> pa.Table:
    """The table less each row's tokens from `start` to before `end`; nothing where end <= start."""
    for name in columns:
        lengths = _lengths(table, name)
        first = np.cumsum(lengths) - lengths
        values = pc.list_flatten(table[name].combine_chunks()).to_numpy()
        row = np.repeat(np.arange(len(lengths)), lengths)
        position = np.arange(len(values)) - first[row]
        keep = (position < start[row]) | (position >= end[row])
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row[keep], minlength=len(lengths)))])
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[keep]))
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _lengths(table: pa.Table, name: str) -> Numbers:
    return pc.list_value_length(table[name]).to_numpy().astype(np.int64)


def _numbers(table: pa.Table, name: str) -> Numbers:
    return table[name].to_numpy().astype(np.int64)


def _counted(rows: dict[str, NDArray[np.bool_]]) -> Counter[str]:
    return Counter({what: int(which.sum()) for what, which in rows.items() if which.any()})


def _tokens(rows: Sequence[dict[str, Ids]], columns: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], _TOKENS) for name in columns})


def _with_prompts(table: pa.Table, pairs: Sequence[dict[str, Ids]], encoder: Encoder) -> pa.Table:
    prompts = [pair["prompt_ids"] for pair in pairs]
    openings = [encoder.opening_length(prompt) for prompt in prompts]
    return _with_lengths(table, list(map(len, prompts)), openings, encoder.reply_start_length)


def _with_lengths(
    table: pa.Table, prompts: list[int], openings: list[int], reply_start: int
) -> pa.Table:
    """reply_start: tokens that the template writes between a question and its reply."""
    texts = [
        max(prompt - opening - reply_start, 0)
        for prompt, opening in zip(prompts, openings, strict=True)
    ]
    cuttable = [
        prompt - reply_start - max(1, min(ASKED_TOKENS, text // 4))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    for name, numbers in ((_PROMPT, prompts), (_OPENING, openings), (_CUTTABLE, cuttable)):
        table = table.append_column(name, pa.array(numbers, pa.int32()))
    return table


def _dataset(table: pa.Table) -> datasets.Dataset:
    digest = hashlib.sha256()
    for name in table.column_names:
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


def _kept(
    table: pa.Table, keep: NDArray[np.bool_], reason: str, source: datasets.Dataset
) -> Fitted:
    """The rows to keep, without the columns that only `fit_*` reads."""
    helpers = [name for name in (_PROMPT, _OPENING, _CUTTABLE) if name in table.column_names]
    kept = table.drop_columns(helpers).filter(pa.array(keep))
    missing = len(table) - len(kept)
    name = hashlib.sha256(f"{source._fingerprint} {reason}".encode()).hexdigest()[:16]
    dropped = Counter({reason: missing} if missing else {})
    return Fitted(_from_table(kept, name), dropped, Counter())
