"""Turn a loop that calls back into a generator. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

Item = TypeVar("Item")


def handed_over(loop: Callable[[Callable[[Item], None]], None]) -> Iterator[Item]:
    """Yield what `loop` hands over, suspending the loop while the consumer looks at it.

    loop: called once with `give`; it hands items over by calling `give(item)`.
    A TRL trainer owns its loop and only calls back. The loop runs on a stack of its own in the
    same thread (a greenlet), so torch's per-thread state and the CUDA device stay what they are.
    Closing the generator raises GreenletExit inside `give`, so the loop's `finally` blocks run.
    """

    def give(item: Item) -> None:
        producer.parent.switch(item)

    producer = greenlet(lambda: loop(give))
    try:
        while True:
            producer.parent = getcurrent()
            item = producer.switch()
            if producer.dead:
                return
            yield item
    finally:
        if not producer.dead:
            producer.parent = getcurrent()
            producer.throw(GreenletExit)
