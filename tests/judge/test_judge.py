"""The judge: the same policy gets the same bits, metrics fit together, nothing is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from easyds_tune.data.records import Message, Prompt, user
from easyds_tune.data.template import choose_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.errors import DataError
from easyds_tune.judge.judge import NUM_SAMPLES, Evaluation, Judge
from easyds_tune.models.generate import end_token_ids, without_adapter
from easyds_tune.spec.judge import JudgeSpec

MakePolicy = Callable[..., Qwen2ForCausalLM]
PROMPTS = [Prompt((user(text),)) for text in ("What is a stack?", "栈是什么?", "hi", "a" * 30)] * 3


class LetterCount:
    """A reward that can be checked by eye: ASCII letters of the reply."""

    def score(self, prompts: Sequence[tuple[Message, ...]], replies: Sequence[str]) -> Tensor:
        assert len(prompts) == len(replies)
        return torch.tensor(
            [float(sum(c.isascii() and c.isalpha() for c in reply)) for reply in replies]
        )


@pytest.fixture
def make_judge(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Judge]:
    def make(prompts: Sequence[Prompt] = PROMPTS, **settings: object) -> Judge:
        spec = JudgeSpec(
            prompts="prompts.jsonl",
            reward={"model_name_or_path": "unused"},
            **{"max_new_tokens": 16, **settings},
        )
        encoder = Encoder(tokenizer, choose_template(tokenizer, None))
        return Judge(spec, prompts, encoder, LetterCount(), end_token_ids=[tokenizer.eos_token_id])

    return make


def evaluate(judge: Judge, policy: torch.nn.Module, reference: torch.nn.Module) -> Evaluation:
    return judge.evaluate(policy, lambda: nullcontext(reference))


def test_the_metrics_have_their_names_and_are_finite(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    metrics = evaluate(make_judge(), make_policy(0), make_policy(1)).metrics
    assert set(metrics) == {
        "eval/reward",
        "eval/reward_stderr",
        "eval/kl",
        "eval/kl_stderr",
        "eval/kl_k1",
        "eval/kl_sequence",
        "eval/length",
        "eval/distinct_2",
        "eval/finished",
    }
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
    assert metrics["eval/kl"] > 0
    assert metrics["eval/kl_stderr"] > 0


def test_kl_per_reply_is_kl_per_token_times_tokens_per_reply(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    metrics = evaluate(make_judge(), make_policy(0), make_policy(1)).metrics
    assert metrics["eval/kl_sequence"] == pytest.approx(metrics["eval/kl"] * metrics["eval/length"])


def test_the_reward_is_the_mean_over_the_replies_that_were_scored(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    evaluation = evaluate(make_judge(PROMPTS[:NUM_SAMPLES]), make_policy(), make_policy())
    assert [sample.prompt for sample in evaluation.samples] == [p.messages for p in PROMPTS[:4]]
    letters = [sum(c.isascii() and c.isalpha() for c in s.reply) for s in evaluation.samples]
    assert [sample.reward for sample in evaluation.samples] == letters
    assert evaluation.metrics["eval/reward"] == sum(letters) / 4
    spread = torch.tensor(letters, dtype=torch.float64).std().item()
    assert evaluation.metrics["eval/reward_stderr"] == pytest.approx(spread / 2)


def test_twice_the_same_policy_gives_the_same_bits(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    judge, policy, reference = make_judge(), make_policy(0), make_policy(1)
    first = evaluate(judge, policy, reference)
    torch.manual_seed(99)
    assert evaluate(judge, policy, reference) == first
    assert evaluate(make_judge(), make_policy(0), make_policy(1)) == first


def test_the_batch_size_changes_nothing_but_rounding(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    one, many = (
        evaluate(make_judge(batch_size=size), make_policy(0), make_policy(1)) for size in (1, 32)
    )
    assert one.samples == many.samples
    assert one.metrics == pytest.approx(many.metrics, rel=1e-5)


def test_an_unchanged_policy_has_a_kl_of_exactly_zero(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    policy = make_policy()
    metrics = evaluate(make_judge(), policy, policy).metrics
    assert metrics["eval/kl"] == metrics["eval/kl_k1"] == metrics["eval/kl_sequence"] == 0
    assert metrics["eval/kl_stderr"] == 0


def test_judging_an_adapter_in_the_middle_of_training_leaves_no_trace(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.5, init_lora_weights=False)
    policy = get_peft_model(make_policy(), config)
    policy.train()
    weights = [(w.requires_grad, w.detach().clone()) for w in policy.parameters()]
    modes = [module.training for module in policy.modules()]
    random_state = torch.get_rng_state()

    judge = make_judge()
    first = judge.evaluate(policy, lambda: without_adapter(policy))

    assert first.metrics["eval/kl"] > 0
    assert judge.evaluate(policy, lambda: without_adapter(policy)) == first
    assert [module.training for module in policy.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    for weight, (requires_grad, before) in zip(policy.parameters(), weights, strict=True):
        assert weight.requires_grad is requires_grad
        assert weight.grad is None
        assert torch.equal(weight, before)


def test_only_the_first_prompts_are_used(
    make_judge: Callable[..., Judge], make_policy: MakePolicy
) -> None:
    policy, reference = make_policy(0), make_policy(1)
    cut = evaluate(make_judge(num_prompts=5), policy, reference)
    assert cut == evaluate(make_judge(PROMPTS[:5]), policy, reference)


def test_a_single_prompt_is_refused_since_it_has_no_standard_error(
    make_judge: Callable[..., Judge],
) -> None:
    with pytest.raises(DataError, match=r"at least 2 prompts .* got 1; add prompts"):
        make_judge(PROMPTS[:1])


def test_the_models_own_end_tokens_count_as_well(
    make_policy: MakePolicy, tokenizer: PreTrainedTokenizerFast
) -> None:
    policy = make_policy()
    policy.generation_config.eos_token_id = [7, 1]
    assert end_token_ids(policy, tokenizer) == [1, 7]
    policy.generation_config.eos_token_id = None
    assert end_token_ids(policy, tokenizer) == [1]
