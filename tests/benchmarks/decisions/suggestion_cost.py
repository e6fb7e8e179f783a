"""What a suggestion costs at 1,000 trials: milliseconds of processor time, by sampler and space.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.decisions.suggestion_cost [--trials 1000] [--gp]

The record is that of a promoting sweep: of ten trials six wait at a rung, one is pruned, one broke
a bound, one ran out of memory and one ran to its end; four run. Between two suggestions two trials
report, one ends and one begins, as in a live sweep. `fresh` is the first suggestion of a suggester
that knows nothing yet, as after a resume. Processor time, so that a busy machine does not count. gp
is measured alone, when asked for: it solves a dense system of all trials, so that its cost grows
with their cube.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from typing import Any

from easyds_tune.decisions.suggest import Suggester
from easyds_tune.journal.events import TrialState
from easyds_tune.spec.sweep import SweepSpec
from tests.decisions.histories import BETA, LEARNING_RATE, LOSS, RANK, SMOOTHING, History, a_spec

FLAT: dict[str, Any] = {
    LEARNING_RATE: {"low": 1e-5, "high": 1e-3, "log": True},
    BETA: {"low": 0.05, "high": 0.5},
    RANK: [4, 8, 16],
    "training.gradient_accumulation_steps": {"low": 1, "high": 4},
    "training.weight_decay": {"low": 0.0, "high": 0.1},
    "training.max_grad_norm": {"low": 0.1, "high": 10.0, "log": True},
}
CONDITIONAL = {
    **FLAT,
    LOSS: ["sigmoid", "exo_pair"],
    SMOOTHING: {"low": 0.01, "high": 0.3, "when": {LOSS: "exo_pair"}},
}
BOUNDS = {"eval/kl": {"min": 0.05, "max": 0.2}, "train/grad_norm": {"max": 50.0}}
STATES = [
    *[TrialState.PAUSED] * 6, TrialState.PRUNED, TrialState.BOUNDED, TrialState.OUT_OF_MEMORY,
    TrialState.COMPLETED,
]  # fmt: skip


def add_trial(history: History, params: dict[str, Any], source: random.Random) -> int:
    """A trial that runs, and has reported five times."""
    number = history.suggest(params)
    for step in range(1, 6):
        reward = step - abs(math.log10(params[LEARNING_RATE]) + 4) + source.gauss(0, 0.1)
        history.report(number, step, reward, source.uniform(0.03, 0.25))
    return number


def measure(spec: SweepSpec, trials: int, suggestions: int) -> tuple[float, list[float]]:
    """Milliseconds of a fresh suggester's first suggestion, and of the following ones."""
    source = random.Random(0)
    history, draws = History(spec), Suggester(with_sampler(spec, "random"))
    running: list[int] = []

    def one_ends() -> None:
        number = running.pop(0)
        history.finish(number, source.choice(STATES))

    for number in range(trials):
        params = draws.suggest(number, history.record)
        assert params is not None
        running.append(add_trial(history, params, source))
        if len(running) > 4:
            one_ends()
    suggester = Suggester(spec)
    seconds = []
    for number in range(trials, trials + suggestions + 1):
        begin = time.process_time()
        params = suggester.suggest(number, history.record)
        seconds.append(time.process_time() - begin)
        assert params is not None
        running.append(add_trial(history, params, source))
        history.report(running[1], 6, 0.0)
        one_ends()
    fresh, *following = (1000 * second for second in seconds)
    return fresh, following


def with_sampler(spec: SweepSpec, sampler: str) -> SweepSpec:
    """The same sweep, proposed by another sampler."""
    search = spec.search.model_copy(update={"sampler": sampler})
    return spec.model_copy(update={"search": search})


def main() -> None:
    """Print one line for each sampler and space."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--suggestions", type=int, default=40)
    parser.add_argument("--gp", action="store_true")
    options = parser.parse_args()
    print(
        f"{'sampler':8} {'space':12} {'bounds':7} {'fresh ms':>9} {'median ms':>10} {'p95 ms':>8}"
    )
    for sampler in ["gp"] if options.gp else ["tpe", "random", "cmaes", "nsga2", "qmc"]:
        for name, space in (("flat", FLAT), ("conditional", CONDITIONAL)):
            for bounds in ({}, BOUNDS):
                spec = a_spec(space, sampler=sampler, num_trials=options.trials, bounds=bounds)
                fresh, following = measure(spec, options.trials, options.suggestions)
                median = statistics.median(following)
                slow = statistics.quantiles(following, n=20)[-1]
                print(
                    f"{sampler:8} {name:12} {'yes' if bounds else 'no':7} {fresh:9.0f} "
                    f"{median:10.1f} {slow:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
