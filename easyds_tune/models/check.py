"""What a model's configuration, tokenizer and file headers say before any weight is read.

For policies and reward models alike. `path` is where in the spec the model is named, or its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from easyds_tune.errors import ModelError, Problem

Shape = tuple[int, ...]

LAYER = re.compile(r"\.\d+\.")
"""In the name of a weight: the number of its layer."""
SHOWN_TOKENS = 3
"""How many tokens outside of the embedding a problem names."""


def stored_shapes(files: Iterable[Path]) -> dict[str, Shape]:
    """Shape of each tensor in safetensors files, by name; ModelError where one cannot be read."""
    shapes: dict[str, Shape] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError([f"{path}: is not whole ({error}); fetch it again"]) from error
    return shapes


def quantised_problems(path: str, name: str, config: PretrainedConfig) -> list[str]:
    """Weights of fewer bits, which take kernels of their own and no merged adapter."""
    quantised = config.to_dict().get("quantization_config")
    if quantised is None:
        return []
    method = quantised.get("quant_method", "unnamed") if isinstance(quantised, dict) else quantised
    return [
        str(
            Problem(
                path,
                "must name a model whose weights are not quantised",
                f"{name}, quantised by {method}",
                "name the model that it was made from",
            )
        )
    ]


def shape_problems(
    path: str, name: str, skeleton: PreTrainedModel, stored: Mapping[str, Shape]
) -> list[str]:
    """Stored tensors of another shape than the configuration's; the first, and how many.

    Tensors that Transformers converts while loading are left out.
    """
    wanted = {key: tuple(value.shape) for key, value in skeleton.state_dict().items()}
    transforms = get_model_conversion_mapping(skeleton)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    found = []
    for key, shape in stored.items():
        target, converted = rename_source_key(
            key, renamings, converters, skeleton.base_model_prefix, dict.fromkeys(wanted, True)
        )
        if converted is None and target in wanted and wanted[target] != shape:
            found.append((key, shape, wanted[target]))
    if not found:
        return []
    key, shape, needed = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [
        str(
            Problem(
                path,
                f"must hold weights of the shapes in its config.json, {key} of {list(needed)}",
                f"{list(shape)} in {name}{more}",
                f"correct config.json, or fetch {name} again",
            )
        )
    ]


def missing_problems(
    path: str, name: str, skeleton: PreTrainedModel, stored: Mapping[str, Shape]
) -> list[str]:
    """Weights of numbered layers that no file holds: Transformers would draw them at random.

    A head or a pooler may be missing, as a reward model trains them. Models whose weights
    Transformers converts while loading are left out.
    """
    transforms = get_model_conversion_mapping(skeleton)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    if not stored or len(renamings) < len(transforms):
        return []
    wanted = {key for key, _ in skeleton.named_parameters() if LAYER.search(key)}
    known = dict.fromkeys(skeleton.state_dict(), True)
    held = {
        rename_source_key(key, renamings, [], skeleton.base_model_prefix, known)[0]
        for key in stored
    }
    missing = sorted(wanted - held)
    if not missing:
        return []
    return [
        str(
            Problem(
                path,
                "must hold the weights of all its layers",
                f"{name} without {missing[0]} ({len(missing)} of {len(wanted)} are missing)",
                f"fetch {name} again, or save it whole",
            )
        )
    ]


def embedding_rows(model: PreTrainedModel) -> int:
    """Rows of the input embedding: token ids must be below."""
    rows: int = model.get_input_embeddings().weight.shape[0]
    return rows


def token_problems(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    used: Iterable[Iterable[int]] = (),
) -> list[str]:
    """Tokens that training or scoring feeds and that the embedding has no row for.

    Those are the special tokens and what occurs in `used`, texts as ids. A vocabulary may hold
    more tokens than the embedding has rows: they do no harm while no text has them.
    """
    named = {
        f"{role} {getattr(tokenizer, role)!r}": getattr(tokenizer, f"{role}_id")
        for role in ("pad_token", "eos_token", "bos_token", "cls_token", "sep_token")
        if getattr(tokenizer, f"{role}_id") is not None
    }
    outside = {what: number for what, number in named.items() if number >= rows}
    if len(tokenizer) > rows:
        known = set(outside.values())
        seen = {number for ids in used for number in ids if number >= rows} - known
        outside |= {
            repr(tokenizer.convert_ids_to_tokens(number)): number for number in sorted(seen)
        }
    if not outside:
        return []
    shown = [f"{what} with id {number}" for what, number in outside.items()]
    more = f" and {len(shown) - SHOWN_TOKENS} more" if len(shown) > SHOWN_TOKENS else ""
    roles = [what.split()[0] for what in outside if what in named]
    remedy = ""
    if len(roles) == len(outside):  # no text has them, so others will do
        remedy = f", or set another {' and '.join(roles)} in tokenizer_config.json"
    return [
        str(
            Problem(
                path,
                f"must have a row of its embedding for every token, and there are {rows}",
                f"the tokenizer's {', '.join(shown[:SHOWN_TOKENS])}{more}",
                "resize the embedding (resize_token_embeddings) and save the model" + remedy,
            )
        )
    ]
