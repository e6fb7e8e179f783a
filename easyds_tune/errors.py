"""Errors that a user may meet. One root, all picklable: Ray carries them between processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule, as text in the order: where, the rule, what was found, the remedy."""

    path: str
    """Where in the spec, such as `model.dtype`, or the name of a model."""
    rule: str
    """What must hold; begins with `must`."""
    got: str
    """What was found instead."""
    remedy: str
    """What to write or do instead."""

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}, got {self.got}; {self.remedy}"


class EasyDSError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class ProblemsError(EasyDSError):
    """Something the user wrote or gave is wrong; all problems are collected before raising."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class SpecError(ProblemsError):
    """The sweep's YAML, an override or a name breaks a rule."""


class DataError(ProblemsError):
    """A data file or data set cannot be read as what the spec says it is."""


class ModelError(ProblemsError):
    """A model folder, adapter or tokenizer is missing or does not fit the spec."""


class CheckpointError(EasyDSError):
    """A checkpoint is incomplete or its files do not match its manifest."""


class JournalError(EasyDSError):
    """A sweep's journal is damaged in the middle or cannot be read."""


class SweepError(EasyDSError):
    """A sweep could not go on; what it has found so far is in its journal."""


class DivergedError(EasyDSError):
    """A trial's loss or metric is not finite; trial state DIVERGED."""


class ExportError(EasyDSError):
    """An exported model does not behave like the checkpoint it came from."""
