"""Makes real drivers and workers misbehave. Python runs this file at its start, being first on
the path; without FAULTS in the environment it does nothing.

FAULTS is a JSON list of faults, FAULTS_FOLDER a folder that gets a file for each time one fired,
`<number of the fault>-<time>`, with the unix seconds in it. Faults of a trial that trains have

    kind    sigkill, sigstop, sleep, oom, greed, damage, nan-loss
    step    the optimizer step before which it happens
    when    {argument of the trainer: value}: only in such trials
    above   of oom: the largest micro-batch that still fits
    times   how often it happens in all; without it, each time

Faults of the judge: nan-reward, nan-kl, no-kl, with the same `when` and `times`. Faults of the
driver: kill-at-event with `event`, `nth` and `when` (before, torn, after); no-fsync; and
time-journal, which leaves in `journal-seconds` how long all appends took together.
"""

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time

FAULTS = json.loads(os.environ.get("FAULTS", "[]"))
FOLDER = os.environ.get("FAULTS_FOLDER", "")
trainer = {}  # the arguments of the trial that this process trains


def is_due(number):
    """Whether a fault may fire once more; marks that it did."""
    for nth in range(FAULTS[number].get("times", 100_000)):
        try:
            handle = os.open(
                os.path.join(FOLDER, f"{number}-{nth}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL
            )
        except FileExistsError:
            continue
        os.write(handle, repr(time.time()).encode())
        os.close(handle)
        return True
    return False


def is_meant(fault):
    """Whether the trial in this process is one that a fault is for."""
    return all(trainer.get(key) == value for key, value in fault.get("when", {}).items())


def before_step(args, state):
    """Called before every optimizer step."""
    trainer.update(vars(args))
    for number, fault in enumerate(FAULTS):
        if fault.get("step") != state.global_step + 1 or not is_meant(fault):
            continue
        if args.per_device_train_batch_size <= fault.get("above", 0):
            continue
        if is_due(number):
            misbehave(fault)


def misbehave(fault):
    """What a fault does."""
    kind = fault["kind"]
    if kind == "damage":
        damage_newest_checkpoint(fault["folder"])
    if kind in ("sigkill", "damage"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "sigstop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "sleep":
        time.sleep(3600)
    elif kind == "raise":
        raise RuntimeError("a bug of the user's own code")
    elif kind == "oom":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    elif kind == "greed":
        greed = bytearray(fault["bytes"])
        greed[::4096] = b"x" * len(greed[::4096])
        time.sleep(fault.get("seconds", 30))


def damage_newest_checkpoint(folder):
    """Cut the largest file of a trial's newest checkpoint in half."""
    from pathlib import Path

    newest = max(Path(folder).glob("*/checkpoints/step-*"), key=lambda path: path.stat().st_mtime)
    largest = max(
        (path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    os.truncate(largest, largest.stat().st_size // 2)


def patch_steps(module):
    """Come before each optimizer step of Transformers' trainers, and see their losses."""
    handler = module.CallbackHandler
    begin = handler.on_step_begin

    def on_step_begin(self, args, state, control):
        before_step(args, state)
        return begin(self, args, state, control)

    handler.on_step_begin = on_step_begin


def patch_judge(module):
    """Spoil what the judge finds."""
    evaluate = module.Judge.evaluate

    def spoiled(self, *args, **more):
        evaluation = evaluate(self, *args, **more)
        for number, fault in enumerate(FAULTS):
            if fault["kind"] not in ("nan-reward", "nan-kl", "no-kl") or not is_meant(fault):
                continue
            if not is_due(number):
                continue
            if fault["kind"] == "no-kl":
                del evaluation.metrics["eval/kl"]
            else:
                name = "eval/reward" if fault["kind"] == "nan-reward" else "eval/kl"
                evaluation.metrics[name] = float("nan")
        return evaluation

    module.Judge.evaluate = spoiled


def patch_writer(module):
    """Kill the driver before, within or after the writing of an event; or leave out fsync."""
    append, write, seen = module.JournalWriter.append, module._write_whole, {}

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def write_half(stream, line):
        stream.write(line[: len(line) // 2])
        kill()

    def append_or_die(self, event):
        name = type(event).__name__
        seen[name] = seen.get(name, 0) + 1
        for number, fault in enumerate(FAULTS):
            if fault["kind"] != "kill-at-event" or (fault["event"], fault["nth"]) != (
                name,
                seen[name],
            ):
                continue
            is_due(number)
            if fault["when"] == "before":
                kill()
            module._write_whole = write_half if fault["when"] == "torn" else write
            entry = append(self, event)
            kill()
            return entry
        return append(self, event)

    module.JournalWriter.append = append_or_die
    kinds = [fault["kind"] for fault in FAULTS]
    if "time-journal" in kinds:
        time_journal(module.JournalWriter)
    if "no-fsync" in kinds:

        class WithoutFsync:
            def __getattr__(self, name):
                return getattr(os, name)

            def fsync(self, handle):
                pass

        module.os = WithoutFsync()


def time_journal(writer):
    """Add up the seconds of every append."""
    append, spent = writer.append, [0.0]

    def timed(self, event):
        started = time.perf_counter()
        entry = append(self, event)
        spent[0] += time.perf_counter() - started
        if type(event).__name__ == "FinalEvent":
            with open(os.path.join(FOLDER, "journal-seconds"), "w") as stream:
                json.dump(spent[0], stream)
        return entry

    writer.append = timed


PATCHES = {
    "transformers.trainer_callback": patch_steps,
    "easyds_tune.judge.judge": patch_judge,
    "easyds_tune.journal.writer": patch_writer,
}


class Patcher(importlib.abc.MetaPathFinder):
    """Patches a module right after its import, whenever that is: nothing is imported early."""

    def find_spec(self, name, path, target=None):
        """Python's own finders find it; its loader patches it."""
        patch = PATCHES.get(name)
        if patch is None:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = execute_and_patch
        return spec


if FAULTS:
    sys.meta_path.insert(0, Patcher())
