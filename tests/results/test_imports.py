from __future__ import annotations

import subprocess
import sys

LIGHT = "best bootstrap display files finals load ranking states status table text why"
HEAVY = "torch ray pandas numpy tensorboard pyarrow transformers"


def test_the_light_modules_import_nothing_heavy() -> None:
    code = (
        f"import importlib, sys\n"
        f"for name in {LIGHT!r}.split(): importlib.import_module('easyds_tune.results.' + name)\n"
        f"print([name for name in {HEAVY!r}.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
