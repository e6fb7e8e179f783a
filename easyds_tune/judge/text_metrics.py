"""What can be said of replies from their token ids alone: variety, length, whether they ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise


def distinct_2(replies: Sequence[Sequence[int]]) -> float:
    """Different pairs of neighbouring tokens over all such pairs, pooled over the replies.

    In [0, 1]; 0 where no reply has two tokens. (Li et al. 2016, "A diversity-promoting objective
    function", section 5, there over words.)
    """
    pairs = [pair for reply in replies for pair in pairwise(reply)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def mean_length(replies: Sequence[Sequence[int]]) -> float:
    """Tokens per reply, the end token included."""
    return sum(map(len, replies)) / len(replies)


def share_finished(replies: Sequence[Sequence[int]], end_token_ids: Collection[int]) -> float:
    """Share of the replies that were ended by an end token, not by the length limit."""
    return sum(bool(reply) and reply[-1] in end_token_ids for reply in replies) / len(replies)
