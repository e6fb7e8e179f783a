"""Variety, length and endings of replies, counted by hand."""

from __future__ import annotations

from easyds_tune.judge.text_metrics import distinct_2, mean_length, share_finished


def test_distinct_2_pools_the_pairs_of_all_replies() -> None:
    # Pairs: 12 21 12 | 12 23 -> 5 in all, 3 different
    assert distinct_2([[1, 2, 1, 2], [1, 2, 3]]) == 3 / 5


def test_distinct_2_forms_no_pair_across_replies() -> None:
    assert distinct_2([[1, 2], [1, 2]]) == 1 / 2


def test_distinct_2_of_replies_without_pairs_is_zero() -> None:
    assert distinct_2([[4], [5]]) == 0.0


def test_length_counts_the_end_token() -> None:
    assert mean_length([[5, 6, 1], [7]]) == 2.0


def test_a_reply_is_finished_by_any_of_the_end_tokens() -> None:
    assert share_finished([[5, 1], [5, 2], [5, 6], [1, 5]], {1, 2}) == 0.5
