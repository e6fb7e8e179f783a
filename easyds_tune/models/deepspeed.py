"""DeepSpeed in one process that outlives many engines: set up once, clean up after each."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.deepspeed import map_pytorch_optim_to_deepspeed
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from easyds_tune.spec.deepspeed import deepspeed_config, filled_config, optimizer_on_cpu
from easyds_tune.spec.training import TrainingSpec


def start_distributed(device: torch.device) -> None:
    """Join a process group of one; call before a model is loaded, any number of times.

    DeepSpeed trains inside a process group even with one rank. The port is a free one, so that
    trials side by side never collide (DeepSpeed issue 3878).
    """
    if torch.distributed.is_initialized():
        return
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(_free_port())
    import deepspeed

    # An optional op for several CPU ranks; it wants a compiler and changes no bit.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="gloo" if device.type == "cpu" else "nccl", verbose=False
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_engine(
    module: nn.Module,
    config: dict[str, Any],
    training: TrainingSpec,
    hidden_size: int | None = None,
) -> Any:
    """A DeepSpeed engine over `module` with AdamW on its trainable weights.

    config: of `deepspeed_config`; hidden_size: as for `filled_config`. An offloaded optimizer is
    DeepSpeed's own, as Accelerate does it.
    """
    import deepspeed

    filled = filled_config(config, training, hidden_size, _type_name(module))
    # Norms and biases are not decayed, as in Transformers' Trainer.
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for weight in trained if weight.ndim > 1]},
            {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.training_arguments.get("adam_epsilon", 1e-8),
        weight_decay=training.weight_decay,
    )
    if optimizer_on_cpu(filled):
        optimizer = map_pytorch_optim_to_deepspeed(optimizer)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=filled)
    tell_gradient_norm(engine)
    return engine


def engine_config(
    setting: str | dict[str, Any], training: TrainingSpec, base: PreTrainedModel
) -> dict[str, Any]:
    """The spec's `deepspeed:` as DeepSpeed takes it, for training `base`."""
    return filled_config(
        deepspeed_config(setting), training, hidden_size_of(base.config), _type_name(base)
    )


def _type_name(module: nn.Module) -> str:
    """The type of a module's weights as a spec writes it, such as bfloat16."""
    return str(next(module.parameters()).dtype).removeprefix("torch.")


def hidden_size_of(config: PretrainedConfig) -> int | None:
    """Numbers in a hidden state; None where the configuration does not say."""
    return getattr(config.get_text_config(), "hidden_size", None)


@contextmanager
def gathered(engine: Any) -> Iterator[nn.Module]:
    """The engine's module, whole: under ZeRO-3 with its shards gathered and its hooks removed.

    Ready for generation and plain forward passes. Under ZeRO-3 it cannot be entered twice.
    """
    if engine.zero_optimization_stage() != 3:
        yield engine.module
        return
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(engine.module.parameters()):
        remove_hooks(engine)
        try:
            yield engine.module
        finally:
            add_hooks(engine)


def tell_gradient_norm(engine: Any) -> None:
    """Make an engine without ZeRO say its gradient norm before clipping, as all others do.

    There, in float32, DeepSpeed clips the gradients and forgets the norm. Changes no bit.
    """
    if hasattr(engine.optimizer, "_global_grad_norm") or engine.zero_optimization():
        return
    take_step = engine._take_model_step

    def measured(*args: Any) -> None:
        gradients = [weight.grad for weight in engine.module.parameters()]
        present = [gradient for gradient in gradients if gradient is not None]
        engine._global_grad_norm = torch.nn.utils.get_total_norm(present).item()
        take_step(*args)

    engine._take_model_step = measured


def release(engine: Any) -> None:
    """Let an engine go, where one was built, so that its memory is freed.

    The hooks of ZeRO hang on autograd's nodes, where Python's garbage collector does not see
    them: without this, every trial's optimizer and gradients would stay for the worker's life.
    """
    if engine is not None:
        engine.destroy()


@contextmanager
def end_of_engine(scratch: Path | None = None) -> Iterator[None]:
    """Forget an engine when the block ends: Accelerate's and Transformers' globals, its folder.

    Accelerate keeps the DeepSpeed plugin in process-wide state; left there, the next trial would
    train under this trial's settings.
    """
    try:
        yield
    finally:
        from accelerate.state import AcceleratorState, GradientState, PartialState
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        AcceleratorState._reset_state()
        GradientState._reset_state()
        PartialState._reset_state()
        unset_hf_deepspeed_config()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
