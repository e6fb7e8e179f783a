"""Logits and hidden states from one forward pass, without dropout, recomputed or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2ForCausalLM

from easyds_tune.models.actor import Actor, without_dropout
from easyds_tune.models.replies import reply_batch, reply_logits
from tests.models.adapters import moved

CPU = torch.device("cpu")
BATCH = reply_batch([[5, 6, 7, 8], [9], [10, 11, 12]], [[20], [21, 22, 23, 24, 1], [26, 1]], 0, CPU)
MakePolicy = Callable[..., Qwen2ForCausalLM]


@pytest.fixture
def actor(make_policy: MakePolicy) -> Actor:
    """A policy with an adapter that does something."""
    return with_adapter(make_policy())


def with_adapter(base: nn.Module) -> Actor:
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return Actor(moved(get_peft_model(base, config), 0.1), shows_states=True).eval()


def loss_of(actor: Actor) -> Tensor:
    logits, _ = actor(BATCH)
    tokens = logits.log_softmax(dim=-1).gather(-1, BATCH.tokens[..., None]).squeeze(-1)
    return torch.where(BATCH.mask, tokens, 0.0).sum()


def gradients(actor: Actor) -> dict[str, Tensor]:
    return {
        name: weight.grad.clone()
        for name, weight in actor.named_parameters()
        if weight.grad is not None
    }


@torch.no_grad()
def test_states_are_the_last_hidden_ones_before_each_token(actor: Actor) -> None:
    logits, states = actor(BATCH)
    assert states.dtype == torch.float32
    assert states.shape == (*BATCH.mask.shape, actor.state_size)
    width = BATCH.mask.shape[1]
    naive = actor.policy(
        input_ids=BATCH.input_ids,
        attention_mask=BATCH.attention_mask,
        position_ids=(BATCH.attention_mask.cumsum(dim=1) - 1).clamp_min(0),
        output_hidden_states=True,
    )
    # The state before a token is read one column earlier.
    hidden = naive.hidden_states[-1][:, -width - 1 : -1]
    torch.testing.assert_close(states[BATCH.mask], hidden[BATCH.mask])
    torch.testing.assert_close(
        logits[BATCH.mask], naive.logits[:, -width - 1 : -1][BATCH.mask], rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_logits_are_the_policys_own_with_states_and_without(actor: Actor) -> None:
    wanted = reply_logits(actor.policy, BATCH)
    assert torch.equal(actor(BATCH)[0], wanted)
    logits, states = Actor(actor.policy, shows_states=False)(BATCH)
    assert torch.equal(logits, wanted)
    assert states is None


def test_nothing_learnt_from_the_states_reaches_the_policy(actor: Actor) -> None:
    logits, states = actor(BATCH)
    assert logits.requires_grad
    assert not states.requires_grad


def test_one_forward_pass_serves_both_and_leaves_no_hook(actor: Actor) -> None:
    passes: list[nn.Module] = []
    causal_lm = actor.policy.get_base_model()
    counter = causal_lm.model.register_forward_hook(lambda module, *_: passes.append(module))
    actor(BATCH)
    counter.remove()
    assert len(passes) == 1
    assert not any(module._forward_pre_hooks for module in actor.modules())


def test_a_forward_pass_that_fails_leaves_no_hook(actor: Actor) -> None:
    with pytest.raises(IndexError):
        actor(reply_batch([[5]], [[10**6]], 0, CPU))
    assert not any(module._forward_pre_hooks for module in actor.modules())


def test_a_state_holds_what_is_trained_and_no_tied_head(make_policy: MakePolicy) -> None:
    base = make_policy()
    base.config.tie_word_embeddings = True
    base.tie_weights()
    assert base.lm_head.weight is base.model.embed_tokens.weight
    actor = with_adapter(base)
    trained = {name for name, weight in actor.named_parameters() if weight.requires_grad}
    assert set(actor.state_dict()) == trained
    assert {name.partition(".")[0] for name in trained} == {"policy"}


def test_a_coarser_policy_has_states_in_float32(make_policy: MakePolicy) -> None:
    actor = Actor(make_policy().bfloat16(), shows_states=True)
    logits, states = actor(BATCH)
    assert (logits.dtype, states.dtype) == (torch.bfloat16, torch.float32)


# ---- no dropout, and gradient checkpointing ---------------------------------------------------


def with_dropout(name: str, make_policy: MakePolicy) -> nn.Module:
    """Models that drop out much: in attention alone, or wherever GPT-2 does."""
    if name == "qwen2":
        policy = make_policy()
        policy.config.attention_dropout = 0.5
        for layer in policy.model.layers:
            layer.self_attn.attention_dropout = 0.5
        return policy
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3,
        resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_the_models_of_these_tests_do_drop_out_in_training(
    name: str, make_policy: MakePolicy
) -> None:
    actor = with_adapter(with_dropout(name, make_policy)).train()
    assert loss_of(actor) != loss_of(actor)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
@pytest.mark.parametrize("arguments", [{}, {"use_reentrant": True}])
def test_recomputing_changes_neither_loss_nor_gradients_and_drops_nothing_out(
    name: str, arguments: dict[str, bool], make_policy: MakePolicy
) -> None:
    actor = with_adapter(with_dropout(name, make_policy))
    without_dropout(actor)
    loss = loss_of(actor)
    loss.backward()
    wanted = gradients(actor)
    actor.zero_grad()

    without_dropout(actor, arguments)
    passes: list[nn.Module] = []
    layers = next(iter(m for m in actor.modules() if isinstance(m, nn.ModuleList)))
    layers[0].mlp.register_forward_pre_hook(lambda module, *_: passes.append(module))
    again = loss_of(actor)
    again.backward()
    assert len(passes) == 2, "the layer ran once more in the backward pass"
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-6)
    found = gradients(actor)
    assert found.keys() == wanted.keys()
    for weight, value in wanted.items():
        torch.testing.assert_close(found[weight], value, rtol=1e-4, atol=1e-5)


def test_without_dropout_and_without_checkpointing_nothing_is_in_training_mode(
    actor: Actor,
) -> None:
    actor.train()
    without_dropout(actor)
    assert not any(module.training for module in actor.modules())
