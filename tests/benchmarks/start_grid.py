"""Every schedule, DeepSpeed config and architecture × algorithm: trains a step, or is rejected.

    python -m tests.benchmarks.start_grid --out results/evidence

One process serves all starts, some ten minutes on two cores; a part of it is always tested, in
tests/integration/test_starts.py. An offloaded optimizer is compiled at its first use.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from easyds_tune.spec.deepspeed import PRESETS
from easyds_tune.spec.training import Schedule
from tests.integration.starting import ALGORITHMS, FAILS, outcome
from tests.models.architectures import ENCODERS, WRITERS, small_model

KWARGS: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "warmup_stable_decay": {"num_decay_steps": 1},
}
"""Settings that a schedule has to be given."""

AUTO: dict[str, Any] = {
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16, "hysteresis": 2},
}  # fmt: skip
CPU = {"device": "cpu", "pin_memory": True}
ZERO2 = {
    "stage": 2, "overlap_comm": True, "contiguous_gradients": True, "reduce_scatter": True,
    "reduce_bucket_size": "auto", "allgather_partitions": True, "allgather_bucket_size": 5e8,
}  # fmt: skip
ZERO3 = {
    "stage": 3, "overlap_comm": True, "contiguous_gradients": True, "sub_group_size": 1e9,
    "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9, "stage3_gather_16bit_weights_on_model_save": True,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "no section at all": {},
    "stage 0, auto": AUTO | {"zero_optimization": {"stage": 0}},
    "stage 1, auto": AUTO | {"zero_optimization": {"stage": 1}},
    "stage 1, optimizer on CPU": AUTO | {"zero_optimization": {
        "stage": 1, "offload_optimizer": CPU}},
    "stage 2, auto": AUTO | {"zero_optimization": ZERO2},
    "stage 2, optimizer on CPU": AUTO | {"zero_optimization": ZERO2 | {"offload_optimizer": CPU}},
    "stage 2, torch's optimizer on CPU": AUTO | {
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": ZERO2 | {"offload_optimizer": CPU},
    },
    "stage 3, auto": AUTO | {"zero_optimization": ZERO3},
    "stage 3, optimizer on CPU": AUTO | {"zero_optimization": ZERO3 | {"offload_optimizer": CPU}},
    "stage 3, optimizer and weights on CPU": AUTO | {
        "zero_optimization": ZERO3 | {"offload_optimizer": CPU, "offload_param": CPU}},
    "stage 3, weights on CPU": AUTO | {"zero_optimization": ZERO3 | {"offload_param": CPU}},
    "stage 3, quantised weights": AUTO | {
        "zero_optimization": ZERO3 | {"zero_quantized_weights": True}},
    "optimizer section": AUTO | {"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}},
    "scheduler section": AUTO | {"scheduler": {"type": "WarmupLR"}},
    "activation_checkpointing section": AUTO | {"activation_checkpointing": {}},
}  # fmt: skip
"""DeepSpeed configs as the documentations of Transformers and DeepSpeed lay them out."""

Start = tuple[str, str, dict[str, Any]]


def schedule_starts() -> Iterator[Start]:
    """(row, algorithm, changes) of every schedule on every stage."""
    for schedule in get_args(Schedule):
        kwargs = KWARGS.get(schedule)
        training = {"lr_scheduler_type": schedule, "max_steps": 2, "eval_steps": 2}
        if kwargs:
            training["training_arguments"] = {"lr_scheduler_kwargs": kwargs}
        for preset in PRESETS:
            for kind in ALGORITHMS:
                yield f"{schedule}, {preset}", kind, {"training": training, "deepspeed": preset}


def config_starts() -> Iterator[Start]:
    """Every DeepSpeed config, in float32 and bfloat16."""
    for name, config in CONFIGS.items():
        for dtype in ("float32", "bfloat16"):
            for kind in ALGORITHMS:
                yield f"{name}, {dtype}", kind, {"deepspeed": config, "model": {"dtype": dtype}}


def architecture_starts(folder: Path) -> Iterator[Start]:
    """Every architecture through the algorithms that it can train."""
    for kind in (*WRITERS, *ENCODERS):
        base = small_model(kind, folder / kind)
        for algorithm in ALGORITHMS if kind in WRITERS else ("rm",):
            yield kind, algorithm, {"base": base}


def _table(title: str, starts: Iterator[Start]) -> tuple[list[str], list[str]]:
    """Lines of a table, and what failed after its start."""
    rows: dict[str, dict[str, str]] = {}
    notes: dict[str, None] = {}
    failed = []
    for row, kind, changes in starts:
        what, why = outcome(kind, **changes)
        rows.setdefault(row, {})[kind] = what
        print(f"{row} | {kind} | {what} {why}", flush=True)
        if why:
            notes[f"- {row}: {why.splitlines()[0]}"] = None
        if what == FAILS:
            failed.append(f"{row} {kind}")
    lines = [
        f"## {title}", "", f"| | {' | '.join(ALGORITHMS)} |", "|---" * (len(ALGORITHMS) + 1) + "|"
    ]  # fmt: skip
    for row, cells in rows.items():
        lines.append(f"| {row} | {' | '.join(cells.get(kind, '–') for kind in ALGORITHMS)} |")
    return [*lines, "", *notes, ""], failed


def main() -> None:
    """Run all starts and write start-grid.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            _table("Architectures", architecture_starts(Path(folder))),
            _table("DeepSpeed configs", config_starts()),
            _table("Schedules × ZeRO stages", schedule_starts()),
        ]
    failed = [start for _, failures in parts for start in failures]
    opening = [
        "# What trains a step, and what is rejected before it",
        "",
        "By `python -m tests.benchmarks.start_grid`, on the CPU: *trains* is a trial's first step "
        "and its evaluation, *rejected* is exit 2 before anything starts.",
        f"Failed after the start: {len(failed)}.",
        "",
    ]
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*opening, *(line for lines, _ in parts for line in lines)])
    (out / "start-grid.md").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
