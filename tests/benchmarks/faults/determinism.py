"""Row 19: the same seed twice."""

from __future__ import annotations

from tests.benchmarks.faults import our_side as our
from tests.benchmarks.faults import ray_side as ray
from tests.benchmarks.faults.place import Outcome, Place
from tests.benchmarks.faults.replays import replay_problem


def same_seed_twice(place: Place, seed: int) -> Outcome:
    """One slot: identical sweeps, trained for real. Two: the recorded order replays."""
    reference = our.trained_reference(place, seed=seed)
    our.finish(our.sweep(place, our.write_spec(place, seed=seed)))
    two = our.write_spec(place, "two", seed=seed, resources__max_concurrent=2, search__num_trials=8)
    our.finish(our.sweep(place, two))
    problems = [our.difference(our.record(place), reference), replay_problem(place, "two")]
    return our.verdict(
        problems, "one slot: same suggestions, decisions and metrics; two: the order replays"
    )


def same_seed_twice_in_ray(place: Place, seed: int) -> Outcome:
    """Row 19 with Ray Tune: one slot, then two."""
    same = {}
    for slots in (1, 2):
        runs = []
        for run in range(2):
            part = Place(place.folder / f"{slots}-{run}")
            part.folder.mkdir()
            running = ray.start_ray(part, seed=seed, slots=slots)
            place.running.append(running)
            ray.finish(running)
            runs.append((ray.configs(ray.log(part, "start")), ray.furthest(part)))
        same[slots] = runs[0] == runs[1]
    seen = ", ".join(f"{n} slots: {'same' if s else 'other'} trials" for n, s in same.items())
    return Outcome(all(same.values()), f"{seen}; no record of the order to replay")
