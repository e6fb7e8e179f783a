"""Policy and value head as one module, so that one forward and one backward serve both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from easyds_tune.models.generate import unwrap
from easyds_tune.models.replies import ReplyBatch, forward_inputs, kept


class ActorCritic(nn.Module):
    """A causal language model (the policy) with a value head on its last hidden state.

    The head reads what the language model's own head reads, so it costs one small product and no
    forward pass of its own. It begins at zero: every state is worth nothing until learnt otherwise,
    and its first gradients leave the policy's weights alone.
    """

    def __init__(self, policy: nn.Module, *, has_value_head: bool) -> None:
        """policy: a PEFT model or a plain one. The head is float32, on the policy's device."""
        super().__init__()
        self.policy = policy
        self.value_head: nn.Linear | None = None
        if has_value_head:
            head = _output_layer(policy)
            self.value_head = nn.Linear(head.weight.shape[1], 1, dtype=torch.float32)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
            self.value_head.to(unwrap(policy).device)
        # DeepSpeed leaves frozen weights out of a checkpoint, but not a tied one's second name.
        self.register_state_dict_post_hook(_without_frozen)

    @property
    def vocabulary(self) -> int:
        """Tokens that the policy chooses from."""
        size: int = unwrap(self.policy).config.get_text_config().vocab_size
        return size

    def forward(self, batch: ReplyBatch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, vocabulary) that predict the reply's tokens, and the values (B, T) there.

        The value of a state stands where the logits do that choose what comes next. Values are
        float32; None without a value head.
        """
        causal_lm = unwrap(self.policy)
        if self.value_head is None:
            return kept(causal_lm(**forward_inputs(causal_lm, batch)).logits, batch), None
        seen: list[Tensor] = []

        def keep_hidden(head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])

        hook = _output_layer(self.policy).register_forward_pre_hook(keep_hidden)
        try:
            logits = causal_lm(**forward_inputs(causal_lm, batch)).logits
        finally:
            hook.remove()
        hidden = kept(seen[0], batch)
        values: Tensor = self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1)
        return kept(logits, batch), values.float()


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
