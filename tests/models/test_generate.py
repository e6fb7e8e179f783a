"""Replies: drawn by common random numbers, whatever the batch, and without a trace."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.generation import TopPLogitsWarper

from easyds_tune.models.generate import (
    Sampling,
    _gumbel,
    draw,
    draw_by_inversion,
    end_token_ids,
    evaluating,
    generate,
    gumbel_noise,
    noise_keys,
    pad_left,
    without_adapter,
)
from tests.models.architectures import small_model

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260k"
EOS, PAD, VOCAB = 1, 0, 40
Draw = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
DRAWS = [draw, draw_by_inversion]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17], [18, 19, 20, 21]]


def keys_of(count: int) -> torch.Tensor:
    return torch.from_numpy(noise_keys(7, 3, count))


def tiny_model(seed: int = 0) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config).eval()


def other_model(architecture: str) -> PreTrainedModel:
    """A tiny model of random weights far from zero; gpt2 learns its positions."""
    if architecture == "qwen":
        return tiny_model()
    sizes = {"vocab_size": VOCAB, "initializer_range": 0.3, "eos_token_id": EOS}
    sizes |= {"pad_token_id": PAD, "bos_token_id": None, "max_position_embeddings": 64}
    sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    if architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    sizes |= {"intermediate_size": 48, "num_key_value_heads": 2}
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    # A window shorter than the texts, in the second layer.
    window = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **window)).eval()


def with_adapter(model: Qwen2ForCausalLM, seed: int = 1) -> PeftModel:
    """An adapter whose weights are far from zero."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(model, config)


def replies(model: torch.nn.Module, **sampling: float) -> list[list[int]]:
    settings = {"max_new_tokens": 12, **sampling}
    return generate(model, PROMPTS, Sampling(**settings), eos_token_ids=[EOS], pad_token_id=PAD)


def drawn_step_by_step(
    model: PreTrainedModel, prompt: list[int], keys: numpy.ndarray, sampling: Sampling
) -> list[int]:
    """One prompt alone, no padding, no cache."""
    ids = list(prompt)
    drawn = draw if sampling.coupled else draw_by_inversion
    for key in torch.from_numpy(keys):
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[:, -1] / sampling.temperature
        if sampling.top_p < 1:
            scores = TopPLogitsWarper(sampling.top_p)(None, scores)
        ids.append(int(drawn(scores, key[None])))
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]


def test_noise_is_splitmix64s_published_stream_as_gumbel_numbers() -> None:
    # The first outputs of SplitMix64 started at 1234567, as its authors' C code prints them.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    uniform = [((output >> 12) + 0.5) / 2**52 for output in published]
    expected = torch.tensor([-math.log(-math.log(u)) for u in uniform], dtype=torch.float64)
    torch.testing.assert_close(gumbel_noise(torch.tensor([1234567]), 3)[0], expected)


@pytest.mark.parametrize("drawn", DRAWS)
def test_a_token_without_probability_is_never_drawn(drawn: Draw) -> None:
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.3, -torch.inf]]).expand(2000, 5)
    assert set(drawn(scores, keys_of(2000)).tolist()) == {1, 3}


def test_noise_is_finite_where_all_bits_are_equal() -> None:
    lowest, highest = _gumbel(torch.tensor([0, -1])).tolist()
    # u = 2^-53 and 1 - 2^-53: -log(53 log 2) = -3.60, and 53 log 2 = 36.74
    assert lowest == pytest.approx(-math.log(53 * math.log(2)))
    assert highest == pytest.approx(53 * math.log(2))


def test_noise_is_finite_in_a_large_vocabulary() -> None:
    assert gumbel_noise(keys_of(20), 150_001).isfinite().all()


@pytest.mark.parametrize("drawn", DRAWS)
def test_tokens_are_drawn_as_often_as_their_probability_says(drawn: Draw) -> None:
    torch.manual_seed(0)
    scores = 1.5 * torch.randn(VOCAB)
    expected = 40_000 * scores.double().softmax(-1)
    assert expected.min() > 10
    tokens = drawn(scores.expand(40_000, VOCAB), keys_of(40_000))
    chi_square = ((tokens.bincount(minlength=VOCAB) - expected) ** 2 / expected).sum()
    # 39 degrees of freedom: mean 39, and 1 in 1,000 true samples lies outside of 14.9 to 76.
    assert 14.9 < chi_square < 76


def test_likely_and_rare_tokens_of_a_large_vocabulary_are_both_drawn() -> None:
    scores = torch.zeros(1, 150_001)
    scores[0, 0] = math.log(150_000)  # half of all draws
    tokens = draw_by_inversion(scores.expand(400, -1), keys_of(400))
    # Half of 400, give or take four standard deviations of 10.
    assert 160 < (tokens == 0).sum() < 240
    assert tokens.unique().numel() > 150
    assert tokens.max() > 140_000


def test_a_number_falls_on_the_token_whose_share_it_lies_in() -> None:
    scores = torch.tensor([0.2, 0.5, 0.3]).log().expand(5, 3)
    # The upper 48 bits of a key are its number: 0, 0.1992, 0.25, 0.75 and the highest one.
    keys = torch.tensor([0, 51 << 56, 1 << 62, -(1 << 62), -1])
    assert draw_by_inversion(scores, keys).tolist() == [0, 0, 1, 2, 2]


def test_the_highest_number_falls_on_a_token_that_is_possible() -> None:
    torch.manual_seed(0)
    scores = torch.randn(50, 1000)
    scores[:, 900:] = -torch.inf
    # Rounded shares add up to a little more or less than 1.
    totals = scores.softmax(-1).double().sum(-1)
    assert totals.min() < 1 < totals.max()
    assert draw_by_inversion(scores, torch.full((50,), -1)).max() < 900


def test_scores_that_are_not_finite_still_give_a_token() -> None:
    scores = torch.full((2, 5), torch.nan)
    assert draw_by_inversion(scores, keys_of(2)).min() >= 0
    assert draw_by_inversion(scores, keys_of(2)).max() < 5


def test_policies_that_hardly_differ_draw_the_same_tokens() -> None:
    torch.manual_seed(0)
    scores = torch.randn(20_000, VOCAB)
    nudged = scores + 0.01 * torch.randn(20_000, VOCAB)
    keys = keys_of(20_000)
    changed = (draw(scores, keys) != draw(nudged, keys)).double().mean()
    variation = (scores.softmax(-1) - nudged.softmax(-1)).abs().sum(-1).mean() / 2
    # Gumbel-max changes at most 2d / (1 + d) of the draws at a total variation of d.
    assert 0 < changed < 2.2 * variation


def test_more_keys_continue_the_fewer() -> None:
    numpy.testing.assert_array_equal(noise_keys(3, 5, 20)[:8], noise_keys(3, 5, 8))
    assert noise_keys(3, 5, 1) != noise_keys(3, 6, 1)
    assert noise_keys(3, 5, 1) != noise_keys(4, 5, 1)


def test_a_seed_of_several_numbers_is_a_seed_of_its_own() -> None:
    numpy.testing.assert_array_equal(noise_keys((3,), 5, 8), noise_keys(3, 5, 8))
    first = {int(noise_keys((3, step), row, 1)[0]) for step in range(20) for row in range(20)}
    assert len(first) == 400


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8)])
@pytest.mark.parametrize("architecture", ["qwen", "qwen-sliding", "llama", "gpt2"])
def test_replies_are_those_drawn_step_by_step_without_batch_or_cache(
    architecture: str, temperature: float, top_p: float, coupled: bool
) -> None:
    model = other_model(architecture)
    sampling = Sampling(12, temperature, top_p, seed=(4, 2), coupled=coupled, batch_size=3)
    expected = [
        drawn_step_by_step(model, prompt, noise_keys((4, 2), index, 12), sampling)
        for index, prompt in enumerate(PROMPTS)
    ]
    assert generate(model, PROMPTS, sampling, eos_token_ids=[EOS], pad_token_id=PAD) == expected


def test_the_logits_a_token_is_drawn_from_are_those_of_a_full_forward_pass() -> None:
    policy = with_adapter(tiny_model())
    steps: list[torch.Tensor] = []
    hook = policy.get_base_model().lm_head.register_forward_hook(
        lambda _module, _inputs, output: steps.append(output[:, -1])
    )
    written = replies(policy, coupled=False)
    hook.remove()
    seen = torch.stack(steps, dim=1).log_softmax(-1)  # (prompts by falling length, place, vocab)
    order = sorted(range(len(PROMPTS)), key=lambda index: -len(PROMPTS[index]))
    for row, index in enumerate(order):
        reply, prompt = written[index], PROMPTS[index]
        with torch.no_grad():
            logits = policy(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        torch.testing.assert_close(seen[row, : len(reply)], expected, atol=5e-5, rtol=0)


def test_the_batch_a_prompt_sits_in_does_not_change_its_reply() -> None:
    model = tiny_model()
    assert replies(model, batch_size=1) == replies(model, batch_size=3) == replies(model)


def test_a_longer_limit_continues_the_same_replies() -> None:
    model = tiny_model()
    assert [reply[:5] for reply in replies(model)] == replies(model, max_new_tokens=5)


def test_the_seed_decides_the_replies() -> None:
    model = tiny_model()
    assert replies(model, seed=1) == replies(model, seed=1)
    assert replies(model, seed=1) != replies(model, seed=2)


def test_temperature_zero_takes_the_likeliest_token() -> None:
    model = tiny_model()
    (ids,) = generate(
        model,
        [PROMPTS[0]],
        Sampling(4, temperature=0),
        eos_token_ids=[VOCAB + 1],
        pad_token_id=PAD,
    )
    text = list(PROMPTS[0])
    for token in ids:
        assert token == model(torch.tensor([text])).logits[0, -1].argmax()
        text.append(token)
    assert len(ids) == 4


def test_a_reply_stops_with_the_first_end_token_and_keeps_it() -> None:
    ends = list(range(30, VOCAB))
    got = generate(
        tiny_model(),
        PROMPTS * 4,
        Sampling(12, batch_size=8),
        eos_token_ids=ends,
        pad_token_id=ends[0],
    )
    assert any(len(reply) < 12 for reply in got)
    for reply in got:
        assert all(token not in ends for token in reply[:-1])
        assert reply[-1] in ends or len(reply) == 12


def test_the_global_random_states_are_neither_read_nor_changed() -> None:
    model = tiny_model()
    torch.manual_seed(1)
    numpy.random.seed(1)
    first = replies(model)
    torch.manual_seed(2)
    numpy.random.seed(2)
    torch_state, numpy_state = torch.get_rng_state(), numpy.random.get_state()[1].copy()
    assert replies(model) == first
    assert torch.equal(torch.get_rng_state(), torch_state)
    numpy.testing.assert_array_equal(numpy.random.get_state()[1], numpy_state)


def test_the_models_own_generation_settings_are_ignored_and_kept() -> None:
    model = tiny_model()
    expected = replies(model)
    model.generation_config.update(repetition_penalty=5.0, top_k=1, min_new_tokens=12)
    settings = model.generation_config
    assert replies(model) == expected
    assert model.generation_config is settings


def test_the_cache_is_used_although_training_switched_it_off() -> None:
    model = tiny_model()
    model.config.use_cache = False
    widths: list[int] = []
    model.lm_head.register_forward_pre_hook(
        lambda _module, inputs: widths.append(inputs[0].shape[1])
    )
    embedded: list[int] = []
    model.model.embed_tokens.register_forward_pre_hook(
        lambda _module, inputs: embedded.append(inputs[0].shape[1])
    )
    replies(model)
    assert embedded[0] == 7
    assert set(embedded[1:]) == {1}
    assert model.config.use_cache is False


def test_dropout_is_off_inside_and_every_modules_mode_is_restored() -> None:
    model = with_adapter(tiny_model())
    model.train()
    model.get_base_model().model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    replies(model)
    assert [module.training for module in model.modules()] == modes


def test_gradient_checkpointing_does_not_change_replies() -> None:
    model = tiny_model()
    expected = replies(model)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()
    assert replies(model) == expected


def test_an_adapter_counts_when_it_is_on_and_not_when_it_is_off() -> None:
    base_replies = replies(tiny_model())
    policy = with_adapter(tiny_model())
    with without_adapter(policy) as base:
        assert replies(base) == base_replies
    adapted = replies(policy)
    assert adapted != base_replies
    assert adapted == replies(policy.merge_and_unload())


def test_without_adapter_leaves_requires_grad_exactly_as_it_was() -> None:
    policy = with_adapter(tiny_model())
    policy.add_adapter("frozen", LoraConfig(r=2, target_modules=["q_proj"]))
    names = [name for name, weight in policy.named_parameters() if weight.requires_grad]
    frozen = next(weight for name, weight in policy.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    before = {name: weight.requires_grad for name, weight in policy.named_parameters()}
    with without_adapter(policy):
        pass
    with pytest.raises(KeyError), without_adapter(policy):
        raise KeyError
    assert {name: weight.requires_grad for name, weight in policy.named_parameters()} == before
    assert len(names) == 8


def test_left_padding_aligns_rows_at_their_end() -> None:
    ids, mask = pad_left([[3, 4], [5, 6, 7]], pad_token_id=9)
    assert ids.tolist() == [[9, 3, 4], [5, 6, 7]]
    assert mask.tolist() == [[0, 1, 1], [1, 1, 1]]


@pytest.mark.filterwarnings("error")
def test_nothing_is_printed_or_warned(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    # As a downloaded model may bring them; update() would itself warn.
    model.generation_config.temperature = 0.6
    model.generation_config.top_k = 20
    model.generation_config.max_length = 20
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        replies(model, temperature=0.5, top_p=0.9)
        replies(model, temperature=0)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no shared model at {STORIES}")
def test_a_real_model_tells_stories() -> None:
    model = AutoModelForCausalLM.from_pretrained(STORIES)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    ends = end_token_ids(model, tokenizer)
    assert ends == [2]
    prompts = [tokenizer(text)["input_ids"] for text in ("Once upon a time", "Lily and Tom")]
    got = generate(
        model, prompts, Sampling(40, temperature=0.7), eos_token_ids=ends, pad_token_id=0
    )
    words = {word.strip('.,!?"') for reply in got for word in tokenizer.decode(reply).split()}
    assert words & {"the", "a", "was", "to"}


def test_a_mixture_of_experts_writes_alike_with_its_router_logits_on(tmp_path: Path) -> None:
    folder = small_model("qwen3_moe", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [[5, 6, 7], [8]]

    def written() -> list[list[int]]:
        return generate(
            model, prompts, Sampling(max_new_tokens=5), eos_token_ids=[2], pad_token_id=0
        )

    wanted = written()
    model.config.output_router_logits = True  # as TRL's trainers leave it
    assert written() == wanted
    assert model.config.output_router_logits is True
