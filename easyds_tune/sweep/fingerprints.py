"""What the files and folders that a spec names hold: a sweep goes on with the same ones only.

Records have hashes of their own, and a hub name its revision; here is what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from easyds_tune.data.template import template_file
from easyds_tune.errors import SpecError
from easyds_tune.models.start import CONFIG
from easyds_tune.spec.algorithm import PPOSpec
from easyds_tune.spec.deepspeed import PRESETS
from easyds_tune.spec.sweep import SweepSpec, get_path

SIMULATE = "--simulate"
SPACE_FILE = "space_file"
READ_OF_MODELS = (
    "*config*.json", "*token*.json", "vocab*", "merges*", "*.index.json", "chat_template.json",
    "*.jinja", "*.model", "*.tiktoken", "*.py", "*.safetensors", "*model*.bin",
)  # fmt: skip
"""What Transformers and PEFT read from a model's folder; not its README, nor a trainer's state."""
WHOLE_BYTES = 16 * 2**20
"""Files up to this size are read whole; of a larger one its size, both ends and stretches."""
END_BYTES = 2**20
STRETCHES, STRETCH_BYTES = 64, 2**14
"""Between the ends, evenly spread: a layer of a model with billions of weights has several."""


def fingerprints(spec: SweepSpec, simulate: Path | None = None) -> dict[str, str]:
    """Field of the spec -> SHA-256 of what it names on this machine, wherever that stands.

    Of a model's folder: its files by name and content, large ones by a sample of it, and where it
    is an adapter, those of the base under it. simulate: the curves that stand in for training; no
    model is read then.

    Raises OSError where a file is gone or cannot be read.
    """
    files: dict[str, Path | None] = {
        SPACE_FILE: Path(spec.space_file) if spec.space_file else None,
        SIMULATE: simulate,
    }
    found = {}
    if simulate is None:
        setting, template = spec.deepspeed, spec.data.chat_template
        if isinstance(setting, str) and setting not in PRESETS:
            files["deepspeed"] = Path(setting)
        files["data.chat_template"] = template_file(template) if template else None
        models = {path: _folder(name) for path, name in _models(spec).items()}
        found = {path: _of_model(folder) for path, folder in models.items() if folder}
    return found | {path: _digest(file) for path, file in files.items() if file}


def refuse_other_files(
    spec: SweepSpec, simulate: Path | None, now: dict[str, str], before: dict[str, str] | None
) -> None:
    """Raise SpecError with a line for each field whose files are not what they were.

    before: at the start; None where the sweep began with a release that kept none. Another space
    file is no problem: the configurations that trials have are in the journal.
    """
    if before is None:
        return
    problems = [
        f"{path}: {_change(path, _named(spec, simulate, path), now, before)}; bring it back as it "
        "was, or start a new sweep"
        for path in sorted(now.keys() | before.keys())
        if now.get(path) != before.get(path) and path != SPACE_FILE
    ]
    if problems:
        raise SpecError(problems)


def space_file_notes(
    spec: SweepSpec, now: dict[str, str], before: dict[str, str] | None
) -> list[str]:
    """That the space file is another than at the start, and which; empty where it is the same."""
    if before is None or now.get(SPACE_FILE) == before.get(SPACE_FILE):
        return []
    return [
        f"{SPACE_FILE}: {spec.space_file} changed since the sweep began; new trials come from it "
        f"as it is now (SHA-256 {now[SPACE_FILE][:12]})"
    ]


def is_same_file(path: Path, before: str | None) -> bool:
    """Whether a file holds what one did whose fingerprint was `before`."""
    return path.is_file() and _digest(path) == before


def _named(spec: SweepSpec, simulate: Path | None, path: str) -> str:
    """What a field names, in words."""
    if path == SIMULATE:
        return str(simulate)
    name = str(get_path(spec.model_dump(), path))
    folder = _folder(name)
    has_base = folder is not None and (folder / CONFIG).is_file()
    return f"{name}, or the base under it," if has_base else name


def _change(path: str, name: str, now: dict[str, str], before: dict[str, str]) -> str:
    if path not in now:
        return f"{name} was a folder on this machine when the sweep began, and is none now"
    if path not in before:
        return f"{name} was no folder on this machine when the sweep began, and is one now"
    return f"{name} changed since the sweep began"


def _models(spec: SweepSpec) -> dict[str, str]:
    """Field -> the model that it names."""
    models = {"model.model_name_or_path": spec.model.model_name_or_path}
    if spec.judge is not None:
        models["judge.reward.model_name_or_path"] = spec.judge.reward.model_name_or_path
    if isinstance(spec.algorithm, PPOSpec):
        models["algorithm.reward.model_name_or_path"] = spec.algorithm.reward.model_name_or_path
    return models


def _folder(name: str) -> Path | None:
    """The folder of a model; None for a hub name."""
    folder = Path(os.path.expanduser(name))
    return folder if folder.is_dir() else None


def _of_model(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's files, and of an adapter's base."""
    parts = {
        path.name: _digest(path)
        for path in folder.iterdir()
        if path.is_file() and any(map(path.match, READ_OF_MODELS))
    }
    if CONFIG in parts:
        parts |= _of_adapter(folder / CONFIG)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _of_adapter(config: Path) -> dict[str, str]:
    """What an adapter's settings say: of a base in a folder its content, for it may have moved."""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        base = _folder(settings["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError):
        return {}  # the checks tell
    if base is None or (base / CONFIG).is_file():
        return {}
    rest = {key: value for key, value in settings.items() if key != "base_model_name_or_path"}
    plain = json.dumps(rest, sort_keys=True)
    return {config.name: hashlib.sha256(plain.encode()).hexdigest(), "/base": _of_model(base)}


def _digest(path: Path) -> str:
    """SHA-256 of a file: of all of it where it is small, else of its size and a sample."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(b"%d bytes" % size)
        last = size - END_BYTES
        for start, length in (
            (0, END_BYTES),
            *((last * part // STRETCHES, STRETCH_BYTES) for part in range(1, STRETCHES)),
            (last, END_BYTES),
        ):
            digest.update(os.pread(stream.fileno(), length, start))
    return digest.hexdigest()
