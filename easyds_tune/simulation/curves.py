"""Learning curves in place of training: what a configuration would report, and what is true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from easyds_tune.errors import DataError
from easyds_tune.simulation.noise import Truth, draw_replies, mean_and_error, ratio_and_error
from easyds_tune.spec.search import Param


class Landscape(Protocol):
    """What configurations are worth, without noise."""

    @property
    def space(self) -> dict[str, Param]:
        """Where it is defined."""
        ...

    @property
    def max_steps(self) -> int:
        """Steps of a trial of full length."""
        ...

    @property
    def tokens_per_step(self) -> float:
        """Trained on in an optimizer step."""
        ...

    @property
    def seconds_per_step(self) -> float:
        """Of an optimizer step."""
        ...

    @property
    def prompts(self) -> int:
        """Of a search's judge."""
        ...

    def truth(self, params: Mapping[str, Any], step: int) -> Truth:
        """A configuration after `step` steps."""
        ...

    def start(self) -> float:
        """The reward of the model that every trial starts from."""
        ...


@dataclass(frozen=True)
class Curves:
    """A landscape and the judge of one sweep: what trials report, noise included.

    judge: the seed of the judge's prompts and draws, which all trials of a sweep share. fixed:
    parameters of the landscape where a trial does not set them. The same arguments give the same
    numbers.
    """

    landscape: Landscape
    judge: int = 0
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def truth(self, params: Mapping[str, Any], step: int) -> dict[str, float]:
        """The true metrics of a checkpoint."""
        truth = self._truth(params, step)
        return {**self._others(truth, step), "eval/reward": truth.reward, "eval/kl": truth.kl,
                "eval/length": truth.length}  # fmt: skip

    def report(self, params: Mapping[str, Any], step: int, seed: int = 0) -> dict[str, float]:
        """What the judge would say of a checkpoint during the search; seed: of the trial."""
        truth = self._truth(params, step)
        replies = draw_replies(
            truth, params, step, judge=self.judge, trial=seed, prompts=self.landscape.prompts
        )
        reward, reward_error = mean_and_error(replies.rewards)
        kl, kl_error = ratio_and_error(replies.nats, replies.tokens)
        return {
            **self._others(truth, step),
            "eval/reward": reward,
            "eval/reward_stderr": reward_error,
            "eval/kl": kl,
            "eval/kl_stderr": kl_error,
            "eval/kl_sequence": float(replies.nats.mean()),
            "eval/length": float(replies.tokens.mean()),
        }

    def finals(
        self, params: Mapping[str, Any], step: int, seed: int, prompts: int
    ) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Values and weights of a checkpoint on fresh prompts, as a `FinalistEvent` holds them."""
        truth = self._truth(params, step)
        replies = draw_replies(
            truth, params, step, judge=self.judge, trial=seed, prompts=prompts, finals=True
        )
        tokens = replies.tokens.tolist()
        values = {
            "eval/reward": replies.rewards.tolist(),
            "eval/kl": replies.nats.tolist(),
            "eval/length": tokens,
        }
        return values, {"eval/kl": tokens}

    def _truth(self, params: Mapping[str, Any], step: int) -> Truth:
        return self.landscape.truth({**self.fixed, **params}, step)

    def _others(self, truth: Truth, step: int) -> dict[str, float]:
        return {
            **truth.others,
            "train/num_tokens": round(self.landscape.tokens_per_step * step),
            "time/train_seconds": self.landscape.seconds_per_step * step,
        }


def load_landscape(path: Path) -> Landscape:
    """Recorded curves from a JSON file, a modelled landscape from a YAML file.

    Raises DataError where the file is neither.
    """
    from easyds_tune.simulation.modelled import ModelledLandscape
    from easyds_tune.simulation.recorded import RecordedLandscape

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return RecordedLandscape.read(json.loads(text))
        return ModelledLandscape.read(yaml.safe_load(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise DataError(
            [
                f"{path} must hold learning curves: recorded trials as JSON, or a landscape as "
                f"YAML; {type(error).__name__}: {error}"
            ]
        ) from error
