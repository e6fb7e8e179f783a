"""The class of an exception decides what a trial becomes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from easyds_tune.errors import CheckpointError, DataError, DivergedError
from easyds_tune.trial.failure import (
    FILE,
    Failure,
    classify,
    put_away_failure,
    read_failure,
    redact,
    write_failure,
)

CANARY = "hf_Ganz'Geheim/4711\n2"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DivergedError("train/loss is nan at step 3"), "DIVERGED"),
        (torch.OutOfMemoryError("tried to allocate 2 GiB"), "OUT_OF_MEMORY"),
        (MemoryError(), "OUT_OF_MEMORY"),
        (DataError(["one", "two"]), "FAILED"),
        (ZeroDivisionError("division by zero"), "FAILED"),
    ],
)
def test_a_failure_has_state_class_and_message(error: Exception, state: str) -> None:
    failure = classify(error)
    assert (failure.state, failure.type) == (state, type(error).__name__)
    assert failure.message == str(error)


def test_a_failure_keeps_the_traceback_to_its_cause() -> None:
    def cause() -> None:
        raise ValueError("内存")

    with pytest.raises(ValueError, match="内存") as caught:
        cause()
    assert "in cause" in classify(caught.value).traceback


def test_a_failure_is_read_as_it_was_written(tmp_path: Path) -> None:
    failure = Failure("FAILED", "ValueError", "形状不符", "Traceback ...")
    write_failure(tmp_path / "trials" / "003", failure)
    assert read_failure(tmp_path / "trials" / "003") == failure


def test_a_worker_that_left_nothing_readable_left_no_failure(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
    for text in ("", "{", "[1]", '{"state": "FAILED"}', '{"unknown": 1}'):
        (tmp_path / FILE).write_text(text, encoding="utf-8")
        assert read_failure(tmp_path) is None


def wrapped(inner: BaseException, *, hidden: bool = False) -> BaseException:
    """An error of another class that was raised while `inner` was handled."""
    try:
        try:
            raise inner
        except BaseException:
            if hidden:
                raise CheckpointError("could not save") from None
            raise CheckpointError("could not save")  # noqa: B904
    except CheckpointError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "state", "name"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "FAILED", "DiskFull"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "FAILED", "DiskFull"),
        (
            SafetensorError("I/O error: No space left on device (os error 28)"),
            "FAILED",
            "DiskFull",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
            "FAILED",
            "DiskFull",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "OUT_OF_MEMORY",
         "OutOfMemoryError"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
         "OUT_OF_MEMORY", "OutOfMemoryError"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate "
                      "memory: you tried to allocate 8 bytes"), "OUT_OF_MEMORY", "MemoryError"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "OUT_OF_MEMORY", "MemoryError"),
        (FileNotFoundError(errno.ENOENT, "no space left on device.txt"), "FAILED",
         "FileNotFoundError"),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), "FAILED", "RuntimeError"),
        (ValueError("CUDA out of memory"), "FAILED", "ValueError"),
    ],
)  # fmt: skip
def test_what_means_the_same_has_one_class(error: Exception, state: str, name: str) -> None:
    """Texts as the libraries write them; a user's own words prove nothing."""
    assert (classify(error).state, classify(error).type) == (state, name)
    around = classify(wrapped(error))
    known = name not in ("FileNotFoundError", "RuntimeError", "ValueError")
    assert around.type == (name if known else "CheckpointError")
    assert classify(wrapped(error, hidden=True)).type == "CheckpointError"


def test_a_loop_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert classify(one).type == "ValueError"


FILL = """
    import sys
    import torch
    from pathlib import Path
    from safetensors.torch import save_file
    from easyds_tune.trial.checkpoint import write_checkpoint
    from easyds_tune.trial.failure import classify, read_failure, write_failure

    disk = Path(sys.argv[1])
    weights = {"a": torch.zeros(2_000_000)}  # 8 MB where 3 MB fit

    def save(folder: Path, write) -> None:
        (folder / "trainer").mkdir()
        write(folder / "trainer" / "state")

    for write in (
        lambda path: save_file(weights, path),
        lambda path: torch.save(weights, path),
        lambda path: path.write_bytes(bytes(8_000_000)),
    ):
        try:
            write_checkpoint(disk / "checkpoints", "000", 1, lambda folder: save(folder, write))
        except Exception as error:
            failure = classify(error)
        write_failure(disk, failure)
        print(read_failure(disk).type, [path.name for path in (disk / "checkpoints").iterdir()])
        (disk / "failure.json").unlink()
    try:
        (disk / "all").write_bytes(bytes(8_000_000))
    except OSError as error:
        write_failure(disk, classify(error))
    print(sorted(path.name for path in disk.iterdir()))
"""


def test_a_full_disk_is_known_whoever_writes_and_ends_no_worker_twice(tmp_path: Path) -> None:
    """On a file system of 3 MB: what a failed checkpoint took is free again for the failure."""
    script = (
        f"mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec {sys.executable} -c "
        f"'{textwrap.dedent(FILL)}' {tmp_path}"
    )
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small file system")
    namespaces = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*namespaces, f"mount -t tmpfs tmpfs {tmp_path}"], check=False).returncode:
        pytest.skip("may not mount a small file system")
    ran = subprocess.run([*namespaces, script], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert lines == ["DiskFull []"] * 3 + ["['all', 'checkpoints']"], ran.stderr


def test_no_secret_reaches_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HF_TOKEN_2", CANARY)
    monkeypatch.setenv("openai_api_key", "sk-" + CANARY)
    monkeypatch.setenv("PIN_SECRET", "4711")  # too short: would cut up every number
    monkeypatch.setenv("HARMLESS", "plain words")

    def ask(token: str) -> None:
        raise ValueError(f"401 for {token} and {token!r}, sk-{token}; plain words 4711 内存")

    with pytest.raises(ValueError, match="401") as caught:
        ask(CANARY)
    sent = classify(caught.value)
    by_hand = Failure("FAILED", "ValueError", CANARY, f"Traceback: {CANARY!r}")
    for failure in (sent, by_hand):
        write_failure(tmp_path, failure)
        text = (tmp_path / FILE).read_text(encoding="utf-8")
        assert "Geheim" not in text
        assert "<MY_HF_TOKEN_2>" in text
    assert "Geheim" not in sent.message + sent.traceback
    assert "<openai_api_key>" in sent.message
    assert "plain words 4711 内存" in sent.message
    assert redact("nothing to hide") == "nothing to hide"


def test_failures_of_earlier_attempts_are_kept_apart(tmp_path: Path) -> None:
    put_away_failure(tmp_path)
    for number in (1, 2):
        write_failure(tmp_path, Failure("FAILED", "WorkerDied", str(number), ""))
        put_away_failure(tmp_path)
        assert read_failure(tmp_path) is None
        kept = (tmp_path / f"failure-{number}.json").read_text(encoding="utf-8")
        assert json.loads(kept)["message"] == str(number)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_name_of_a_file_that_is_no_utf8_is_readable_in_its_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        os.stat(os.fsdecode(bytes(tmp_path / "weights") + b"\xff.bin"))
    sent = classify(caught.value)
    for failure in (sent, Failure("FAILED", "FileNotFoundError", "weights\udcff.bin", "\udcff")):
        write_failure(tmp_path, failure)
        kept = read_failure(tmp_path)
        assert kept is not None
        assert r"weights\udcff.bin" in kept.message
        assert r"\udcff" in kept.traceback
        for text in (kept.message, kept.traceback, (tmp_path / FILE).read_text("utf-8")):
            text.encode()
    json.dumps(sent.message, ensure_ascii=False).encode()
