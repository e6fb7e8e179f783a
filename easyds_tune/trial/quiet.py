"""Silence what the training libraries print: the journal and the display tell it better."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Keep errors, drop warnings, progress bars and banners of the libraries underneath."""
    warnings.simplefilter("ignore")
    import torch

    if not torch.accelerator.is_available():
        # DeepSpeed finds that out as well, and warns of it each time.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Warnings that libraries raise while they load a model come through logging as well.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    from transformers.utils import logging as transformers_logging

    for name in ("DeepSpeed", "deepspeed", "trl", "accelerate", "datasets", "peft", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
