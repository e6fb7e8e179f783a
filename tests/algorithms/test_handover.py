"""A loop that calls back becomes a generator: in step, and ended whichever side gives up."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import pytest

from easyds_tune.algorithms.handover import handed_over

Give = Callable[[object], None]


def test_loop_and_consumer_take_turns() -> None:
    happened: list[str] = []

    def loop(give: Give) -> None:
        for n in range(3):
            happened.append(f"made {n}")
            give(n)
        happened.append("done")

    for item in handed_over(loop):
        happened.append(f"seen {item}")
    assert happened == ["made 0", "seen 0", "made 1", "seen 1", "made 2", "seen 2", "done"]


def test_none_is_an_item_like_any_other() -> None:
    def loop(give: Give) -> None:
        give(None)
        give(0)

    assert list(handed_over(loop)) == [None, 0]


def test_a_loop_without_items_gives_an_empty_generator() -> None:
    assert list(handed_over(lambda give: None)) == []


def test_an_exception_of_the_loop_reaches_the_consumer() -> None:
    def loop(give: Give) -> None:
        give(1)
        raise KeyError("lost")

    items = handed_over(loop)
    assert next(items) == 1
    with pytest.raises(KeyError, match="lost"):
        next(items)
    assert list(items) == []


def test_closing_runs_the_loops_finally_blocks() -> None:
    ended: list[str] = []

    def loop(give: Give) -> None:
        try:
            give(1)
            ended.append("went on")
        finally:
            ended.append("cleaned up")

    items = handed_over(loop)
    next(items)
    items.close()
    assert ended == ["cleaned up"]
    items.close()


def test_a_handler_of_exceptions_in_the_loop_does_not_stop_the_closing() -> None:
    """Trainers catch Exception here and there; the end of a trial is none."""
    ended: list[str] = []

    def loop(give: Give) -> None:
        while not ended:
            try:
                give(1)
            except Exception:
                ended.append("caught")

    items = handed_over(loop)
    next(items)
    items.close()
    assert ended == []


def test_an_exception_of_the_consumer_ends_the_loop() -> None:
    ended: list[str] = []

    def loop(give: Give) -> None:
        try:
            give(1)
        finally:
            ended.append("cleaned up")

    items = handed_over(loop)
    next(items)
    with pytest.raises(ValueError, match="mine"):
        items.throw(ValueError("mine"))
    assert ended == ["cleaned up"]


def test_a_generator_that_is_never_started_never_runs_its_loop() -> None:
    ran: list[int] = []
    items = handed_over(lambda give: ran.append(1))
    items.close()
    del items
    gc.collect()
    assert ran == []


def test_a_forgotten_generator_ends_its_loop() -> None:
    ended: list[str] = []

    def loop(give: Give) -> None:
        try:
            give(1)
        finally:
            ended.append("cleaned up")

    items = handed_over(loop)
    next(items)
    del items
    gc.collect()
    assert ended == ["cleaned up"]


def test_a_loop_may_iterate_another_one() -> None:
    def inner(give: Give) -> None:
        give("a")
        give("b")

    def outer(give: Give) -> None:
        for item in handed_over(inner):
            give((item, 1))
            give((item, 2))

    assert list(handed_over(outer)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_two_generators_may_be_read_by_turns() -> None:
    def count(give: Give) -> None:
        for n in range(2):
            give(n)

    assert list(zip(handed_over(count), handed_over(count), strict=True)) == [(0, 0), (1, 1)]


def test_the_loop_runs_in_the_consumers_thread() -> None:
    """Torch's gradient mode and CUDA's current device belong to a thread."""

    def loop(give: Give) -> None:
        give(threading.get_ident())

    def twice(items: Iterator[object]) -> list[object]:
        return list(items)

    assert twice(handed_over(loop)) == [threading.get_ident()]
