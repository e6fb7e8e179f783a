"""Whether a policy's model can train as the spec says: from its configuration and file headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel
from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from easyds_tune.data.tokenise import Encoder
from easyds_tune.errors import ModelError, Problem
from easyds_tune.models.check import (
    embedding_rows,
    missing_problems,
    quantised_problems,
    shape_problems,
    stored_shapes,
    token_problems,
)
from easyds_tune.models.load import ModelKind, expand_home, load_skeleton
from easyds_tune.spec.model import ModelSpec
from easyds_tune.spec.resources import gpus_of
from easyds_tune.spec.searched import values_of
from easyds_tune.spec.sweep import SweepSpec
from easyds_tune.trial.records import SweepRecords

MODEL = "model.model_name_or_path"
ATTENTION = "model.attn_implementation"
USUAL = "set sdpa or eager, or null, which lets Transformers choose"


def base_problems(base: ModelSpec, skeleton: PreTrainedModel) -> list[str]:
    """Quantised weights, weights of other shapes than the configuration's, and missing ones."""
    name = base.model_name_or_path
    if quantised := quantised_problems(MODEL, name, skeleton.config):
        return quantised
    files = sorted(Path(expand_home(name)).glob("*.safetensors"))
    stored = stored_shapes(files)
    return shape_problems(MODEL, name, skeleton, stored) + missing_problems(
        MODEL, name, skeleton, stored
    )


def vocabulary_problems(
    records: SweepRecords,
    encoded: dict[str, Dataset],
    encoder: Encoder,
    skeleton: PreTrainedModel,
) -> list[str]:
    """Tokens of the records, the judge's prompts or the tokenizer itself without an embedding.

    encoded: sets of records as token ids, in columns whose names end with `_ids`.
    """

    rows = embedding_rows(skeleton)

    def used() -> Iterator[list[int]]:
        for dataset in encoded.values():
            table = dataset.data.table
            for name in table.column_names:
                if name.endswith("_ids"):
                    ids = pc.list_flatten(table[name])
                    yield pc.unique(ids.filter(pc.greater_equal(ids, rows))).to_pylist()
        for prompts in (records.prompts, records.finals_prompts):
            yield from encoder.prompts([prompt.messages for prompt in prompts])

    return token_problems(MODEL, encoder.tokenizer, rows, used())


def embedding_target_problems(skeleton: PreTrainedModel, algorithm: str) -> list[str]:
    """Adapters on the embedding or the output head that are not trained, or cannot be merged.

    skeleton: with its adapters on. TRL's losses of sft and dpo read the head's own weight. A head
    that is tied to the embedding is one tensor: merged, an adapter on one would change both.
    """
    head = skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
    table = skeleton.get_input_embeddings()
    if head is None:
        return []
    is_tied = bool(skeleton.config.get_text_config().tie_word_embeddings)
    found = []
    if isinstance(head, BaseTunerLayer) and algorithm in ("sft", "dpo"):
        found.append((head, "an adapter on the output head, which the loss does not train"))
    elif isinstance(head, BaseTunerLayer) and is_tied:
        found.append((head, "an adapter on a head tied to the embedding, which cannot be merged"))
    if isinstance(table, BaseTunerLayer) and is_tied:
        found.append((table, "an adapter on an embedding tied to the head, which cannot be merged"))
    names = {id(module): name.rpartition(".")[2] for name, module in skeleton.named_modules()}
    return [
        str(
            Problem(
                "model.lora_target_modules",
                f"must leave out {names[id(module)]} for {algorithm}",
                got,
                "take it out, or set model.lora_r: null to train every weight",
            )
        )
        for module, got in found
    ]


def attention_problems(spec: SweepSpec, base: ModelSpec, kind: ModelKind) -> list[str]:
    """Attention that is not installed here, or that the device or the model does not have."""
    names = dict.fromkeys(values_of(spec, ATTENTION, spec.model.attn_implementation))
    return [
        str(Problem(ATTENTION, *problem))
        for name in names
        if (problem := _attention_problem(name, spec, base, kind)) is not None
    ]


def _attention_problem(
    name: str, spec: SweepSpec, base: ModelSpec, kind: ModelKind
) -> tuple[str, str, str] | None:
    """(rule, got, remedy) of one attention implementation; None where it can train."""
    # Kernels of the hub are left out, since compiled code would be fetched and run, and so are
    # `paged|` ones, which serve continuous batching.
    known = ["eager", *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if "paged" not in key)]
    if name not in known:
        return f"must be {', '.join(known[:-1])} or {known[-1]}", name, USUAL
    is_flash = name.startswith("flash_attention_")
    if is_flash and (why := _flash_is_missing(name)):
        return "must be installed here", f"{name}: {why}", f"install it, or {USUAL}"
    if (is_flash or name == "flex_attention") and not gpus_of(spec.resources):
        return "must be sdpa or eager where no GPU is used", name, USUAL
    if is_flash and "float32" in values_of(spec, "model.dtype", spec.model.dtype):
        return (
            "must be sdpa or eager where the model is in float32",
            name,
            "set model.dtype: bfloat16, or attn_implementation: sdpa",
        )
    try:
        taken = load_skeleton(base, kind, name).config._attn_implementation
    except ModelError as error:
        why = str(error).partition("the model does not load: ")[2] or str(error)
        return "must be one that this model has", f"{name}: {why}", USUAL
    if taken != name:
        return "must be one that this model has", f"{name}, which it replaces by {taken}", USUAL
    return None


def _flash_is_missing(name: str) -> str:
    """Why a flash attention cannot be used here, else an empty text.

    Where its package is missing, Transformers would take a kernel from the hub without a word.
    """
    version = FLASH_ATTENTION_COMPATIBILITY_MATRIX[int(name.rpartition("_")[2])]
    if not version["pkg_availability_check"]():
        return "its package is not installed"
    return "" if version["general_availability_check"]() else "it does not run on this GPU"
