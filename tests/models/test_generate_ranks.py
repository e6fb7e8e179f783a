"""Generation where each rank holds a shard of the weights: a rank that is done waits for others."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from easyds_tune.models.generate import Sampling, generate
from easyds_tune.models.load import load_model
from easyds_tune.spec.model import ModelSpec
from tests.models.small_models import qwen

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [16, 17]]
SAMPLING = Sampling(8, batch_size=2, coupled=False)
RANKS = 2
END_TOKENS = {0: range(259), 1: [258]}
"""Rank 0 ends each reply with its first token, rank 1 hardly ever."""


def load(folder: Path) -> torch.nn.Module:
    spec = ModelSpec(model_name_or_path=str(folder), dtype="float32")
    return load_model(spec, "causal", torch.device("cpu"))


def replies(model: torch.nn.Module, rank: int) -> list[list[int]]:
    return generate(model, PROMPTS, SAMPLING, eos_token_ids=list(END_TOKENS[rank]), pad_token_id=0)


def one_rank(rank: int, port: int, folder: Path) -> None:
    """A process of the group: replies of the sharded model must be those of the whole one."""
    torch.set_num_threads(1)
    os.environ.update(
        DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    expected = replies(load(folder), rank)
    model = load(folder)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters()),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    assert all(weight.numel() == 0 for weight in model.parameters())
    assert replies(engine.module, rank) == expected
    assert {len(reply) for reply in expected} == ({1} if rank == 0 else {8})


@pytest.mark.slow
def test_a_rank_whose_replies_are_short_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    folder = qwen(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ranks = multiprocessing.spawn(one_rank, (port, folder), nprocs=RANKS, join=False)
    try:
        # It returns whenever one of them ends, and raises what any of them raised: a rank that
        # waits for one that has left finds the connection closed.
        while not ranks.join():
            pass
    finally:
        for process in ranks.processes:
            process.kill()
