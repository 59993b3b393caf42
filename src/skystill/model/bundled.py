"""The bundled model: a small INT8 student, trained on aerial photographs of Dubai, that is part of the package."""

from importlib import resources
from pathlib import Path


def bundled_model() -> Path:
    """Return the path of the bundled model file."""
    return Path(str(resources.files("skystill.model") / "weights" / "dubai.onnx"))


def model_card() -> str:
    """Return its model card in Markdown: what it was trained on, how accurate it is, and where it fails."""
    return bundled_model().with_suffix(".md").read_text(encoding="utf-8")
