"""Turn the journal of a sweep that was trained for real into a recorded landscape.

`python -m tests.benchmarks.decisions.record SWEEP_FOLDER LANDSCAPE.json`: metrics as reported,
smoothed by what reads them. Trials that did not come to their end are left out, and counted.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from easyds_tune.journal.events import TrialState
from easyds_tune.journal.reader import read_events
from easyds_tune.journal.replay import SweepRecord, TrialRecord, replay

METRICS = (
    "eval/reward", "eval/reward_stderr", "eval/kl", "eval/kl_stderr", "eval/length",
    "train/loss", "train/grad_norm",
)  # fmt: skip
STILL = 1e-3
"""KL below which a policy counts as the model it started from."""


def landscape(record: SweepRecord, spec: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a recorded landscape; spec: as the sweep's folder has it, resolved."""
    trials = [t for t in record.trials.values() if t.state is TrialState.COMPLETED]
    steps = [report.step for report in trials[0].reports]
    last = [trial.reports[-1].metrics for trial in trials]
    still = [
        report.metrics["eval/reward"]
        for trial in trials
        for report in trial.reports
        if report.metrics["eval/kl"] < STILL
    ]
    return {
        "sweep": record.name,
        "algorithm": record.algorithm,
        "left_out": len(record.trials) - len(trials),
        "space": record.space,
        "prompts": spec["judge"]["num_prompts"],
        "steps": steps,
        "tokens_per_step": round(_tokens(last, spec["algorithm"], steps[-1]), 1),
        "seconds_per_step": round(_median(last, "time/train_seconds") / steps[-1], 3),
        "start": _short(statistics.fmean(still)),
        "trials": [_trial(trial) for trial in trials],
    }


def _trial(trial: TrialRecord) -> dict[str, Any]:
    return {
        "params": trial.params,
        "metrics": {
            name: [_short(report.metrics[name]) for report in trial.reports] for name in METRICS
        },
    }


def _tokens(last: list[dict[str, float]], algorithm: dict[str, Any], steps: int) -> float:
    """Tokens of a step; of PPO's, the replies', where the release that trained it counted none."""
    if "train/num_tokens" in last[0]:
        return _median(last, "train/num_tokens") / steps
    return _median(last, "train/length") * float(algorithm["rollout_batch_size"])


def _median(metrics: list[dict[str, float]], name: str) -> float:
    return statistics.median(found[name] for found in metrics)


def _short(value: float) -> float:
    return float(f"{value:.6g}")


if __name__ == "__main__":
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    resolved = json.loads((folder / "spec.resolved.json").read_text(encoding="utf-8"))
    found = landscape(replay(read_events(folder / "journal.jsonl")), resolved["spec"])
    rows = ",\n".join(json.dumps(trial) for trial in found.pop("trials"))
    head = json.dumps(found, indent=1).removesuffix("\n}")
    target.write_text(f'{head},\n "trials": [\n{rows}\n]}}\n', encoding="utf-8")
