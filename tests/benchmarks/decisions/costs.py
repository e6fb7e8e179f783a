"""What deciding costs at a thousand trials: a suggestion, and a report."""

from __future__ import annotations

import statistics

from easyds_tune.decisions.make import make_decider
from easyds_tune.simulation.curves import Curves
from easyds_tune.simulation.discrete import simulate
from easyds_tune.spec.stop import StopSpec
from tests.benchmarks.decisions.runs import JUDGES, landscape, spec_of

TRIALS, SLOTS, NEWEST = 1000, 16, 50


def costs(name: str = "hacking") -> dict[str, float]:
    """Seconds of our decider in one sweep of a thousand trials."""
    spec = spec_of(name)
    search = spec.search.model_copy(update={"num_trials": TRIALS})
    spec = spec.model_copy(update={"search": search, "stop": StopSpec()})
    curves = Curves(landscape(name), judge=JUDGES)
    swept = simulate(spec, curves, lambda record: make_decider(spec, record, SLOTS), SLOTS)
    proposals, reports = swept.propose_costs[-NEWEST:], sorted(swept.report_costs)
    return {
        f"a suggestion at {TRIALS:,} trials, median": statistics.median(proposals),
        f"a suggestion at {TRIALS:,} trials, largest": max(proposals),
        "a report, median": statistics.median(reports),
        "a report, 99 %": reports[int(0.99 * len(reports))],
    }
