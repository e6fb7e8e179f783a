"""Ending a trial on request, in the middle of forward passes that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from easyds_tune import progress
from easyds_tune.models.generate import unwrap

StopAsked = Callable[[], bool]
"""Whether the trial is to end as soon as it can; once true, it stays true."""


class Stopped(Exception):
    """A stop was asked for while the model was only looked at."""


def never() -> bool:
    """No stop is asked for."""
    return False


@contextmanager
def stoppable(model: nn.Module, stop_asked: StopAsked) -> Iterator[None]:
    """Within the block, raise Stopped after the forward pass in which a stop was asked for.

    Only around what can be done anew with the same result: drawing replies, judging.
    """

    def check(*_: object) -> None:
        progress.made()
        if stop_asked():
            raise Stopped

    hook = unwrap(model).register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()
