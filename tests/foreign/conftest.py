"""These tests run where their libraries are (README.md), and are passed over elsewhere."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
collect_ignore_glob = []
if importlib.util.find_spec("torchvision") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    sys.path.append(str(Path(__file__).parent))
    import cpu_torchvision  # noqa: F401 - before any test imports torchvision
