"""What the page of `skystill export --format html` runs on: ONNX Runtime for WebAssembly, and geotiff.js."""

import gzip
import hashlib
import json
from importlib import resources
from typing import Any

_BUILT = resources.files("skystill_web") / "built"


def read_manifest() -> dict[str, Any]:
    """Return the npm packages that the files were built from, and the size and SHA-256 of each file, unpacked."""
    found: dict[str, Any] = json.loads((_BUILT / "manifest.json").read_text(encoding="utf-8"))
    return found


def read_packed(name: str) -> bytes:
    """Return a file as it is stored, packed with gzip.

    Args:
        name: its name in the manifest, such as "ort.wasm".

    Raises:
        ValueError: its content is not that of the manifest.
    """
    packed = (_BUILT / f"{name}.gz").read_bytes()
    wanted = read_manifest()["files"][name]["sha256"]
    try:
        found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
    except (OSError, EOFError) as error:
        raise ValueError(f"skystill_web/built/{name}.gz is damaged: {error}") from error
    if found != wanted:
        raise ValueError(f"skystill_web/built/{name}.gz is damaged: its SHA-256 is {found}, and {wanted} was expected")
    return packed
