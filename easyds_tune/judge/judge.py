"""The one evaluation that all algorithms share: frozen prompts -> replies -> reward and KL.

Every evaluation of every trial uses the same prompts and the same random numbers, so differences
in its metrics are differences between policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from easyds_tune.data.records import Message, Prompt
from easyds_tune.data.tokenise import Encoder
from easyds_tune.errors import DataError
from easyds_tune.judge import statistics, text_metrics
from easyds_tune.models.generate import Sampling, generate
from easyds_tune.models.kl import Reference, reply_kl
from easyds_tune.rewards.reward import Reward
from easyds_tune.spec.judge import JudgeSpec

NUM_SAMPLES = 4
"""Replies that an evaluation keeps for a person to read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One judged reply, as text."""

    prompt: tuple[Message, ...]
    reply: str
    reward: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the judge found: metrics by name, and a few replies to read.

    `eval/kl` and `eval/kl_k1` are nats per token, pooled over all reply tokens;
    `eval/kl_sequence` is nats per reply; `eval/length` is tokens, the end token included.
    `values` has one number a prompt: a metric is their mean, or where `weights` holds it too, their
    sum over the sum of the weights (nats and tokens of each reply).
    """

    metrics: dict[str, float]
    samples: list[Sample]
    values: dict[str, list[float]] = field(default_factory=dict)
    weights: dict[str, list[float]] = field(default_factory=dict)


class Judge:
    """Judges policies on one set of prompts, which are tokenised once."""

    def __init__(
        self,
        spec: JudgeSpec,
        prompts: Sequence[Prompt],
        encoder: Encoder,
        reward: Reward,
        *,
        end_token_ids: Sequence[int],
        seed: int | tuple[int, ...] | None = None,
    ) -> None:
        """encoder: the policy's; end_token_ids: what ends its replies (`generate.end_token_ids`).

        seed: of other draws than the spec's. Of the prompts, the spec's number is asked at most.
        Raises DataError for fewer than two prompts.
        """
        if len(prompts) < 2:
            raise DataError(
                [
                    f"judge.prompts must hold at least 2 prompts for a standard error, got "
                    f"{len(prompts)}; add prompts that are not in the training data"
                ]
            )
        self._prompts = list(prompts[: spec.num_prompts])
        self._prompt_ids = encoder.prompts([prompt.messages for prompt in self._prompts])
        self._encoder = encoder
        self._reward = reward
        self._end_token_ids = list(end_token_ids)
        self._sampling = Sampling(
            max_new_tokens=spec.max_new_tokens,
            temperature=spec.temperature,
            top_p=spec.top_p,
            seed=spec.seed if seed is None else seed,
            batch_size=spec.batch_size,
        )

    def evaluate(
        self, policy: nn.Module, reference: Reference, batch_size: int | None = None
    ) -> Evaluation:
        """Judge `policy`; the same weights give the same bits.

        reference: gives the model that the trial started from. Nothing of the policy changes:
        neither weights, modes, `requires_grad`, nor the global random state.
        batch_size: prompts at a time where it is not the spec's; it changes memory, speed and
        the rounding of results.
        """
        pad_token_id = self._encoder.tokenizer.pad_token_id
        sampling = self._sampling
        if batch_size is not None:
            sampling = replace(sampling, batch_size=batch_size)
        replies = generate(
            policy,
            self._prompt_ids,
            sampling,
            eos_token_ids=self._end_token_ids,
            pad_token_id=pad_token_id,
        )
        kl = reply_kl(
            policy,
            reference,
            self._prompt_ids,
            replies,
            pad_token_id=pad_token_id,
            batch_size=sampling.batch_size,
        )
        texts = [self._encoder.text(ids) for ids in replies]
        rewards = self._reward.score([prompt.messages for prompt in self._prompts], texts)

        lengths = torch.tensor([len(ids) for ids in replies])
        mean_reward = statistics.mean(rewards)
        token_kl = statistics.ratio(kl.full, lengths)
        metrics = {
            "eval/reward": mean_reward.value,
            "eval/reward_stderr": mean_reward.stderr,
            "eval/kl": token_kl.value,
            "eval/kl_stderr": token_kl.stderr,
            "eval/kl_k1": statistics.ratio(kl.k1, lengths).value,
            "eval/kl_sequence": kl.full.mean().item(),
            "eval/length": text_metrics.mean_length(replies),
            "eval/distinct_2": text_metrics.distinct_2(replies),
            "eval/finished": text_metrics.share_finished(replies, self._end_token_ids),
        }
        samples = [
            Sample(prompt.messages, text, reward)
            for prompt, text, reward in zip(self._prompts, texts, rewards.tolist(), strict=True)
        ]
        tokens = lengths.double().tolist()
        values = {
            "eval/reward": rewards.double().tolist(),
            "eval/kl": kl.full.tolist(),
            "eval/kl_k1": kl.k1.tolist(),
            "eval/kl_sequence": kl.full.tolist(),
            "eval/length": tokens,
            "eval/finished": [
                text_metrics.share_finished([ids], self._end_token_ids) for ids in replies
            ],
        }
        weights = {"eval/kl": tokens, "eval/kl_k1": tokens}
        return Evaluation(metrics, samples[:NUM_SAMPLES], values, weights)
