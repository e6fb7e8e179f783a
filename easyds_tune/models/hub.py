"""Whether a model's hub name can be loaded, asked once and with a short timeout.

The hub's client retries each file of an unreachable hub for 25 s and prints every attempt
(huggingface_hub 1.x), also where the file is in its cache.
"""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from easyds_tune.models.load import expand_home

TIMEOUT_SECONDS = 10.0
CONFIGS = ("config.json", "adapter_config.json")


def hub_problems(name: str, revision: str | None = None) -> list[str]:
    """Why a hub name cannot be loaded; empty for a folder on this machine.

    Switches the hub's client to offline mode, for this process and its children, where the hub
    cannot be reached and the model is in the cache.
    """
    if Path(expand_home(name)).is_dir():
        return []
    try:
        cached = any(
            isinstance(try_to_load_from_cache(name, config, revision=revision), str)
            for config in CONFIGS
        )
    except HFValidationError:
        return [f"{name}: is neither a folder here nor a hub name; correct it"]
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        try:
            HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
            return []
        except RevisionNotFoundError:
            return [f"{name}: has no revision {revision!r} on the hub; correct model.revision"]
        except GatedRepoError:
            return [
                f"{name}: is gated; accept its terms on the hub and log in with `hf auth login`"
            ]
        except RepositoryNotFoundError:
            return [
                f"{name}: there is no such folder here ({Path.cwd()}), and no such model on the "
                "hub that you may read; correct it"
            ]
        except Exception as error:  # the HTTP client's own classes, by version
            why = f"the hub cannot be reached ({error})"
    if not cached:
        return [
            f"{name}: there is no such folder here ({Path.cwd()}), it is not in the hub's cache, "
            f"and {why}; correct it, or download it first with `hf download {name}`"
        ]
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    return []
