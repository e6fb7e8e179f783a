"""One workbench an algorithm, shared by the tests of a module: trials leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.trial.small import Algorithm, Lab, sweep_spec


@pytest.fixture(scope="module")
def lab_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Algorithm], Lab]:
    """The lab of an algorithm, opened at its first use."""

    @cache
    def open_lab(algorithm: Algorithm) -> Lab:
        return Lab(sweep_spec(algorithm), tmp_path_factory.mktemp(algorithm))

    return open_lab
