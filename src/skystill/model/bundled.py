"""The model in the box: a small INT8 student, trained on aerial photographs of Dubai, that comes with the package."""

from importlib import resources
from pathlib import Path


def bundled_model() -> Path:
    """Its model file."""
    return Path(str(resources.files("skystill.model") / "weights" / "dubai.onnx"))


def model_card() -> str:
    """What it was trained on, how good it is, where it fails; Markdown."""
    return bundled_model().with_suffix(".md").read_text(encoding="utf-8")
