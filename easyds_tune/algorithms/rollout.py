"""One rollout: draw replies, score them, and measure them under policy, value head and reference.

N replies, T tokens of the longest one. What a step draws depends on (seed, step) and the weights
alone, so nothing random has to be kept for a resumed trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from datasets import Dataset
from torch import Tensor

from easyds_tune.algorithms.critic import Critic
from easyds_tune.algorithms.ppo_math import token_entropy
from easyds_tune.algorithms.row import ModelContext, TrialInputs
from easyds_tune.data.tokenise import Ids
from easyds_tune.errors import DivergedError
from easyds_tune.models.actor import Actor
from easyds_tune.models.generate import Sampling, generate
from easyds_tune.models.kl import MAX_LOG_PROBS, MAX_LOGITS, token_kl
from easyds_tune.models.replies import ReplyBatch, keeps_tail, reply_batch, reply_logits
from easyds_tune.spec.algorithm import PPOSpec

PROMPT_ORDER, ROLLOUT, MINI_BATCHES = 1, 2, 3
"""What random numbers are for: each use has a stream of its own."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The replies of one step, by rows; replies to one prompt are neighbours.

    Tensors are float32 on the CPU and (N, T) unless said otherwise; a reply stands at the end of
    its row, and what stands outside of `mask` is 0.
    """

    prompts: list[Ids]
    replies: list[Ids]
    mask: Tensor
    """True where a reply's token is."""
    scores: Tensor
    """(N,), the reward's, as it gave them."""
    ended: Tensor
    """(N,), True where a reply has its end token."""
    log_p: Tensor
    """Of the drawn tokens under the policy, at the rollout's temperature."""
    log_q: Tensor
    """The same under the reference."""
    kl: Tensor
    """KL(policy ‖ reference) of the whole distributions at temperature 1, in nats."""
    entropy: Tensor
    """Of the policy's distribution at the rollout's temperature, in nats."""
    values: Tensor
    """Of the state before each token; 0 without a value head."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all prompts and replies."""
        return sum(map(len, self.prompts)) + sum(map(len, self.replies))


def stream(*key: int) -> numpy.random.Generator:
    """Random numbers that depend on the key alone."""
    return numpy.random.Generator(numpy.random.Philox(numpy.random.SeedSequence(key)))


def prompts_of_step(count: int, step: int, wanted: int, seed: int) -> list[int]:
    """Which of `count` prompts step 1, 2, … takes: pass after pass, each in an order of its own."""
    places = range((step - 1) * wanted, step * wanted)
    orders = {
        epoch: stream(PROMPT_ORDER, seed, epoch).permutation(count)
        for epoch in range(places[0] // count, places[-1] // count + 1)
    }
    return [int(orders[place // count][place % count]) for place in places]


def draw_rollout(
    actor: Actor,
    critic: Critic | None,
    reference: ModelContext,
    inputs: TrialInputs,
    ppo: PPOSpec,
    *,
    seed: int,
    step: int,
) -> Rollout:
    """Draw, score and measure the replies of a step; the actor's weights must be whole.

    Raises DivergedError where a score, a log-probability or a value is not finite.
    """
    assert inputs.reward is not None
    wanted = ppo.rollout_batch_size // ppo.num_generations
    chosen: Dataset = inputs.train[prompts_of_step(len(inputs.train), step, wanted, seed)]
    repeated = [row for row in range(wanted) for _ in range(ppo.num_generations)]
    prompts = [chosen["prompt_ids"][row] for row in repeated]
    replies = generate(
        actor.policy,
        prompts,
        Sampling(
            max_new_tokens=ppo.response_length,
            temperature=ppo.temperature,
            seed=(ROLLOUT, seed, step),
            coupled=False,
            batch_size=ppo.rollout_forward_batch_size,
        ),
        eos_token_ids=inputs.end_token_ids,
        pad_token_id=inputs.tokenizer.pad_token_id,
    )
    texts = [inputs.encoder.text(reply) for reply in replies]
    scores = inputs.reward.score([tuple(chosen["messages"][row]) for row in repeated], texts)
    if not scores.isfinite().all():
        raise DivergedError(f"the reward of a reply is not finite at step {step}")
    rollout = _measured(actor, critic, reference, inputs, ppo, prompts, replies, scores)
    for name in ("log_p", "log_q", "kl", "values"):
        if not getattr(rollout, name).isfinite().all():
            raise DivergedError(f"{name} of the rollout is not finite at step {step}")
    return rollout


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probability of each token at a temperature, float32; (…, vocabulary) and (…) -> (…)."""
    scaled = logits.float() / temperature
    drawn = scaled.gather(-1, tokens[..., None]).squeeze(-1)
    return drawn - scaled.logsumexp(dim=-1)


def _measured(
    actor: Actor,
    critic: Critic | None,
    reference: ModelContext,
    inputs: TrialInputs,
    ppo: PPOSpec,
    prompts: list[Ids],
    replies: list[Ids],
    scores: Tensor,
) -> Rollout:
    """The rollout with forward passes of policy and reference over it, in batches of one length."""
    count, longest = len(replies), max(map(len, replies))
    names = ("log_p", "log_q", "kl", "entropy", "values")
    found = {name: torch.zeros(count, longest) for name in names}
    mask = torch.zeros(count, longest, dtype=torch.bool)
    order = sorted(range(count), key=lambda row: -len(prompts[row]) - len(replies[row]))
    start = 0
    with torch.no_grad():
        while start < count:
            rows = order[start : start + _rows_that_fit(actor, ppo, prompts, longest)]
            start += len(rows)
            batch = reply_batch(
                [prompts[row] for row in rows],
                [replies[row] for row in rows],
                inputs.tokenizer.pad_token_id,
                inputs.device,
            )
            width = batch.mask.shape[1]
            policy_logits, states = actor(batch)
            with reference() as model:
                reference_logits = reply_logits(model, batch)
            measures = _token_measures(policy_logits, reference_logits, batch, ppo.temperature)
            if critic is not None:
                measures["values"] = torch.where(batch.mask, critic.values(states), 0.0)
            for name, values_of in measures.items():
                found[name][rows, -width:] = values_of.cpu()
            mask[rows, -width:] = batch.mask.cpu()
    ended = torch.tensor([reply[-1] in inputs.end_token_ids for reply in replies])
    return Rollout(prompts, replies, mask, scores, ended, **found)


def _rows_that_fit(actor: Actor, ppo: PPOSpec, prompts: list[Ids], longest: int) -> int:
    """Rows of one forward pass, so that its logits stay within bounds."""
    width = longest + 1 + (0 if keeps_tail(actor.policy) else max(map(len, prompts)))
    fit = MAX_LOGITS // (width * actor.vocabulary)
    return max(1, min(fit, ppo.rollout_forward_batch_size))


def _token_measures(
    policy_logits: Tensor, reference_logits: Tensor, batch: ReplyBatch, temperature: float
) -> dict[str, Tensor]:
    """What the logits say at each reply token, each (rows, T); a block of tokens at a time."""
    row, column = batch.mask.nonzero(as_tuple=True)
    tokens = batch.tokens[row, column]
    block = max(1, MAX_LOG_PROBS // policy_logits.shape[-1])
    pieces: dict[str, list[Tensor]] = {"log_p": [], "log_q": [], "kl": [], "entropy": []}
    for at in range(0, len(tokens), block):
        part = slice(at, at + block)
        p, q = policy_logits[row[part], column[part]], reference_logits[row[part], column[part]]
        pieces["log_p"].append(token_log_probs(p, tokens[part], temperature))
        pieces["log_q"].append(token_log_probs(q, tokens[part], temperature))
        pieces["kl"].append(token_kl(p, q, tokens[part]).full)
        pieces["entropy"].append(token_entropy(p.float() / temperature))
    measures = {}
    for name, values in pieces.items():
        measures[name] = torch.zeros(batch.mask.shape, device=policy_logits.device)
        measures[name][row, column] = torch.cat(values)
    return measures
