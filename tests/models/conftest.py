"""The judge's tiny policy serves the tests of KL as well."""

from tests.judge.conftest import make_policy

__all__ = ["make_policy"]
