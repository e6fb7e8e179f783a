"""The policy as a module that also returns the hidden states a critic reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from easyds_tune.models.generate import unwrap
from easyds_tune.models.replies import ReplyBatch, forward_inputs, kept


class Actor(nn.Module):
    """A causal language model (the policy) that shows its last hidden states beside its logits.

    The states are what the language model's own head reads, so a critic on them costs no forward
    pass of its own. They are detached: no loss of a critic can move the policy.
    """

    def __init__(self, policy: nn.Module, *, shows_states: bool) -> None:
        """policy: a PEFT model or a plain one."""
        super().__init__()
        self.policy = policy
        self.shows_states = shows_states
        # DeepSpeed leaves frozen weights out of a checkpoint, but not a tied one's second name.
        self.register_state_dict_post_hook(_without_frozen)

    @property
    def vocabulary(self) -> int:
        """Tokens that the policy chooses from."""
        size: int = unwrap(self.policy).config.get_text_config().vocab_size
        return size

    @property
    def state_size(self) -> int:
        """Numbers in the hidden state of one token."""
        size: int = _output_layer(self.policy).weight.shape[1]
        return size

    def forward(self, batch: ReplyBatch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, vocabulary) that predict the reply's tokens, and states (B, T, H) there.

        The state that a token is drawn from stands where the logits do that choose it. States are
        float32, without a gradient; None where they are not shown.
        """
        causal_lm = unwrap(self.policy)
        if not self.shows_states:
            return kept(causal_lm(**forward_inputs(causal_lm, batch)).logits, batch), None
        seen: list[Tensor] = []

        def keep_hidden(head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])

        hook = _output_layer(self.policy).register_forward_pre_hook(keep_hidden)
        try:
            logits = causal_lm(**forward_inputs(causal_lm, batch)).logits
        finally:
            hook.remove()
        return kept(logits, batch), kept(seen[0], batch).detach().float()


def _without_frozen(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Keep of a state what is trained, and buffers."""
    for name, weight in module.named_parameters(remove_duplicate=False):
        if not weight.requires_grad:
            state.pop(prefix + name, None)


def without_dropout(module: nn.Module, checkpointing: dict[str, Any] | None = None) -> None:
    """Evaluation mode for training: no dropout anywhere, as PPO's ratios need it.

    checkpointing: recompute activations in the backward pass, with these arguments of
    Transformers'. It does so in training mode only, so its layers alone are put there.
    """
    module.eval()
    for part in module.modules():
        if checkpointing is not None and isinstance(part, PreTrainedModel):
            part.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False, **checkpointing}
            )
            break
    if checkpointing is None:
        return
    for part in module.modules():
        if isinstance(part, GradientCheckpointingLayer):
            part.training = True
            if isinstance(getattr(part, "dropout", None), float):
                part.dropout = 0.0  # some old layers apply it themselves


def _output_layer(policy: nn.Module) -> nn.Module:
    layer: nn.Module = unwrap(policy).get_output_embeddings()
    return layer
