"""Hand a checkpoint over: a folder that plain Transformers or PEFT loads, checked before it counts.

Works on the CPU. Stands above `trial`, whose checkpoint folders it reads; knows nothing of sweeps.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from easyds_tune.data.template import choose_template, set_template
from easyds_tune.data.tokenise import Encoder
from easyds_tune.deploy.card import Form, ModelCard, render_card
from easyds_tune.deploy.verify import (
    adapter_gaps,
    compared_sequences,
    largest_difference,
    load_as_stranger,
    logits,
    refuse_other_text,
    rms_difference,
)
from easyds_tune.drafts import draft_folder
from easyds_tune.errors import ExportError, SpecError
from easyds_tune.models.load import ModelKind, load_model
from easyds_tune.models.start import load_start_tokenizer, start_of
from easyds_tune.spec.model import ModelSpec
from easyds_tune.trial.checkpoint import verify_checkpoint

ADAPTER_WEIGHTS = "adapter_model.safetensors"
COPIED_TOLERANCE = 1e-6
"""Largest difference of a logit where the weights are copied as they are."""
MERGED_TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""The same where LoRA is merged, as a share of the largest logit: about 8 roundings of the type."""
CPU = torch.device("cpu")
PICKLED = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of files that may run code when they are read."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how closely it computes what the checkpoint does.

    dtype: type of the exported weights (of the base's, for an adapter).
    largest_difference: between any logit of the export and of the checkpoint, over `sequences`
    token sequences; it was held to `tolerance`.
    """

    folder: Path
    form: Form
    files: tuple[str, ...]
    bytes: int
    dtype: str
    sequences: int
    largest_difference: float
    tolerance: float


def export(
    checkpoint: Path,
    base: ModelSpec,
    kind: ModelKind,
    to: Path,
    *,
    merge: bool,
    card: ModelCard,
    chat_template: str | None = None,
    working_folder: Path | None = None,
) -> ExportReport:
    """Write a checkpoint to `to` as a model that others can load, and prove that it computes alike.

    checkpoint: a trial's checkpoint folder; its manifest is verified first, its optimizer state
    stays where it is.
    base: what the trial started from. Where that is an adapter, the checkpoint holds it already and
    stands on the adapter's own base; tokenizer and template are the adapter's.
    merge: add the LoRA weights to the base and write a whole model; computed in float32, written in
    the base's own type (or `base.dtype`). A model that was trained whole is whole either way.
    chat_template: the spec's field, resolved as for training: Jinja text, a file under
    `working_folder`, `none` for plain text, or None for what the start's tokenizer gives. The
    exported tokenizer has the template that results.

    `to` appears whole or not at all. Raises SpecError where it is occupied or the template's file
    is gone, CheckpointError where the checkpoint is damaged, ModelError where the base does not
    load, and ExportError where the export, loaded again, gives other logits than the checkpoint or
    puts a chat into other tokens than training. Needs memory for one model.
    """
    to = Path(os.path.expanduser(to)).resolve()
    _refuse_occupied(to)
    verify_checkpoint(checkpoint)
    base = base.model_copy(
        update={"model_name_or_path": base_reference(base), "attn_implementation": None}
    )
    start = start_of(base)
    base = start.base
    is_adapter = (checkpoint / "adapter_config.json").is_file()
    form: Form = "full" if not is_adapter else "merged" if merge else "adapter"
    tokenizer = load_start_tokenizer(start)
    template = choose_template(tokenizer, chat_template, working_folder)
    trained = Encoder(tokenizer, template)

    with _whole_or_nothing(to) as folder:
        if form == "merged":
            check = _write_merged(checkpoint, base, kind, tokenizer, folder)
        else:
            check = _write_copied(checkpoint, base, kind, form, folder)
        set_template(tokenizer, template)
        tokenizer.save_pretrained(folder)
        refuse_other_text(folder, trained, base.trust_remote_code)
        if kind == "causal":
            _generation_config(base).save_pretrained(folder)
        text = render_card(
            card,
            base,
            base.model_name_or_path,
            kind,
            form,
            to,
            template=template,
            started_from=start.adapter,
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        _refuse_pickles(folder)
        difference = _compare(check, base, kind, form, folder)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        report = ExportReport(
            folder=to,
            form=form,
            files=tuple(path.name for path in files),
            bytes=sum(path.stat().st_size for path in files),
            dtype=str(check.stored_dtype).removeprefix("torch."),
            sequences=len(check.sequences),
            largest_difference=difference,
            tolerance=check.tolerance,
        )
    return report


def _refuse_pickles(folder: Path) -> None:
    """Weights are safetensors: nothing that is handed over can run code when it is loaded."""
    found = sorted(path.name for path in folder.rglob("*") if path.suffix.lower() in PICKLED)
    if found:
        raise ExportError(f"an export holds no pickles, and this one would hold {', '.join(found)}")


def base_reference(base: ModelSpec) -> str:
    """How an export names its base: a local folder by its absolute path, else as the spec does."""
    folder = Path(os.path.expanduser(base.model_name_or_path))
    return str(folder.resolve()) if folder.is_dir() else base.model_name_or_path


@dataclass(frozen=True)
class _Check:
    """What the export has to reproduce: the checkpoint's logits.

    compute_dtype: type both are computed in; stored_dtype: type of the exported weights.
    without_adapter: the base's own logits where LoRA was merged, to see what rounding took away.
    """

    sequences: list[list[int]]
    wanted: list[Tensor]
    compute_dtype: torch.dtype
    stored_dtype: torch.dtype
    tolerance: float
    without_adapter: list[Tensor] | None = None


def _refuse_occupied(to: Path) -> None:
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists():
        what = "is not empty" if to.is_dir() else "is a file"
        raise SpecError([f"--to: must be a new or empty folder, {to} {what}; name another one"])


@contextmanager
def _whole_or_nothing(to: Path) -> Iterator[Path]:
    """A folder beside `to` that takes its name at the end, or vanishes with all that was made."""
    made = [parent for parent in to.parents if not parent.exists()]
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        folder = draft_folder(to)
    except OSError as error:
        raise SpecError([f"--to: cannot write to {to.parent}: {error.strerror}"]) from error
    try:
        yield folder
        # What draft_folder and safetensors make is for this user alone; a service reads as another.
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        folder.chmod(0o755)
        os.replace(folder, to)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        if isinstance(error, OSError | SafetensorError):
            raise ExportError(f"the export to {to} failed: {error}") from error
        raise


def _write_copied(
    checkpoint: Path, base: ModelSpec, kind: ModelKind, form: Form, folder: Path
) -> _Check:
    """Copy the trained weights byte for byte, and compute the checkpoint's logits."""
    start = base
    if form == "full":
        start = base.model_copy(update={"model_name_or_path": str(checkpoint), "revision": None})
    stored = _stored_dtype(start)
    plain = _load(start, kind, stored)
    sequences = compared_sequences(plain)
    if form == "full":
        wanted = logits(plain, sequences)
        shutil.copyfile(checkpoint / "config.json", folder / "config.json")
    else:
        wanted = logits(_with_adapter(plain, checkpoint), sequences)
        _write_adapter_config(checkpoint, base, folder)
    for path in checkpoint.glob("*.safetensors*"):  # the index of a sharded model, too
        if path.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(path, folder / path.name)
    return _Check(sequences, wanted, stored, stored, COPIED_TOLERANCE)


def _write_merged(
    checkpoint: Path,
    base: ModelSpec,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> _Check:
    """Merge in float32, write in the base's type, and compute the checkpoint's logits."""
    stored = _stored_dtype(base) if base.dtype == "auto" else getattr(torch, base.dtype)
    plain = _load(base, kind, torch.float32)
    sequences = compared_sequences(plain)
    without_adapter = logits(plain, sequences)
    model = _with_adapter(plain, checkpoint)
    wanted = logits(model, sequences)
    merged = model.merge_and_unload(safe_merge=True)
    if kind == "reward":
        # A classifier finds the end of a padded text by this id.
        merged.config.pad_token_id = tokenizer.pad_token_id
    merged.to(stored).save_pretrained(folder)
    largest = max(row.abs().max().item() for row in wanted)
    tolerance = MERGED_TOLERANCE[stored] * max(1.0, largest)
    return _Check(sequences, wanted, torch.float32, stored, tolerance, without_adapter)


def _load(base: ModelSpec, kind: ModelKind, dtype: torch.dtype) -> PreTrainedModel:
    name = str(dtype).removeprefix("torch.")
    return load_model(base.model_copy(update={"dtype": name}), kind, CPU)


def _stored_dtype(base: ModelSpec) -> torch.dtype:
    """The type a model's weights have on disk, by its configuration."""
    config = AutoConfig.from_pretrained(
        base.model_name_or_path, revision=base.revision, trust_remote_code=base.trust_remote_code
    )
    return config.dtype or torch.float32


def _with_adapter(plain: PreTrainedModel, folder: Path) -> PeftModel:
    """The base with the adapter of a folder on it; ExportError where they do not fit."""
    try:
        model = PeftModel.from_pretrained(plain, folder)
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{folder}: the adapter does not fit its base: {error}") from error
    gaps = adapter_gaps(model, folder / ADAPTER_WEIGHTS)
    if gaps:
        raise ExportError(
            f"{folder}: the adapter does not fit its base: {len(gaps)} tensors have no "
            f"counterpart, the first is {gaps[0]}; was it trained on another model?"
        )
    return model


def _write_adapter_config(checkpoint: Path, base: ModelSpec, folder: Path) -> None:
    config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {
        "base_model_name_or_path": base.model_name_or_path,
        "revision": base.revision,
        "inference_mode": True,
    }
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _generation_config(base: ModelSpec) -> GenerationConfig:
    """How replies are generated by default: the base's own settings, where it has any."""
    try:
        return GenerationConfig.from_pretrained(
            base.model_name_or_path, revision=base.revision or "main"
        )
    except OSError:
        config = AutoConfig.from_pretrained(
            base.model_name_or_path,
            revision=base.revision,
            trust_remote_code=base.trust_remote_code,
        )
        return GenerationConfig.from_model_config(config)


def _compare(check: _Check, base: ModelSpec, kind: ModelKind, form: Form, folder: Path) -> float:
    """Load the export as a stranger would; the largest difference, or ExportError."""
    options = {"dtype": check.compute_dtype, "trust_remote_code": base.trust_remote_code}
    if form == "adapter":
        if kind == "reward":
            options["num_labels"] = 1
        plain = load_as_stranger(base.model_name_or_path, kind, revision=base.revision, **options)
        got = logits(_with_adapter(plain, folder), check.sequences)
    else:
        got = logits(load_as_stranger(str(folder), kind, **options), check.sequences)

    difference = largest_difference(got, check.wanted)
    if not difference <= check.tolerance:  # NaN is no match either
        raise ExportError(
            f"the exported model's logits must be within {check.tolerance:g} of the checkpoint's, "
            f"they differ by {difference:g}; nothing was kept"
        )
    if check.without_adapter is not None:
        _refuse_rounded_away(rms_difference(got, check.wanted), check)
    return difference


def _refuse_rounded_away(lost: float, check: _Check) -> None:
    """A coarse type can round a small adapter away; such a model is the base again."""
    assert check.without_adapter is not None
    effect = rms_difference(check.wanted, check.without_adapter)
    if check.stored_dtype != torch.float32 and lost > effect / 2 > 0:
        raise ExportError(
            f"merging into {str(check.stored_dtype).removeprefix('torch.')} rounds away what was "
            f"trained: logits lose {lost:.2g} of the adapter's {effect:.2g} (root mean square); "
            "export the adapter without --merge, or set model.dtype: float32"
        )
