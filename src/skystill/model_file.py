"""One ONNX file that carries all it needs: weights, normalisation, and what its classes are.

Input `image` (N, 3, H, W) uint8, 0 to 255; output `logits` (N, C, H, W) float32; N, H and W are free. The metadata
properties are JSON values; `ModelInfo` is what they hold.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from skystill import __version__
from skystill.classes import ClassMap, classes_from
from skystill.errors import ClassesError, ModelFileError

_KEYS = ("classes", "tile_size", "overlap", "network", "parameters", "multiply_adds_per_megapixel", "skystill_version")


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of itself.

    Args:
        classes: names and colours of the C classes.
        network: name of the network in the table of sizes.
        parameters: number of learnt values.
        multiply_adds_per_megapixel: for 10^6 pixels of input.
        tile_size: side in pixels of the tiles that it is best given.
        overlap: pixels that neighbouring tiles should share, so that no border shows.
        version: of the SkyStill that wrote it.
    """

    classes: ClassMap
    network: str
    parameters: int
    multiply_adds_per_megapixel: int
    tile_size: int = 1024
    overlap: int = 256
    version: str = __version__

    def to_metadata(self) -> dict[str, str]:
        """The metadata properties, JSON values by key."""
        return {
            "classes": json.dumps(self.classes.to_dict()),
            "network": json.dumps(self.network),
            "parameters": json.dumps(self.parameters),
            "multiply_adds_per_megapixel": json.dumps(self.multiply_adds_per_megapixel),
            "tile_size": json.dumps(self.tile_size),
            "overlap": json.dumps(self.overlap),
            "skystill_version": json.dumps(self.version),
        }


def open_session(path: Path, threads: int = 0) -> ort.InferenceSession:
    """Open a model file in ONNX Runtime on the CPU.

    Args:
        path: the file.
        threads: 0 for all cores.

    Raises:
        ModelFileError: missing, cut short, not a model, or with other inputs and outputs than ours.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # it keeps the largest size ever asked for (onnxruntime issue 11627)
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(
            f"{path} cannot be opened as an ONNX model ({reason}). Export it again, or take a whole copy."
        ) from error
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    if inputs != ["image"] or outputs != ["logits"]:
        raise ModelFileError(
            f"{path} takes {', '.join(inputs)} and gives {', '.join(outputs)}; "
            "a SkyStill model takes image and gives logits."
        )
    return session


def read_info(session: ort.InferenceSession, path: Path) -> ModelInfo:
    """What an open model file says of itself.

    Raises:
        ModelFileError: keys are missing or damaged; the message names them.
    """
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise ModelFileError(
            f"{path} lacks the metadata {', '.join(missing)}; it was not exported by SkyStill. Export the run again."
        )
    try:
        values: dict[str, Any] = {key: json.loads(metadata[key]) for key in _KEYS}
        return ModelInfo(
            classes=classes_from(values["classes"], str(path)),
            network=str(values["network"]),
            parameters=int(values["parameters"]),
            multiply_adds_per_megapixel=int(values["multiply_adds_per_megapixel"]),
            tile_size=int(values["tile_size"]),
            overlap=int(values["overlap"]),
            version=str(values["skystill_version"]),
        )
    except (ValueError, TypeError, ClassesError) as error:
        raise ModelFileError(f"{path}: its metadata is damaged ({error}). Export the run again.") from error
