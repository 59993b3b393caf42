"""One ONNX file that carries all it needs: weights, normalisation, and what its classes are.

Input `image` (N, 3, H, W) uint8, 0 to 255; output `logits` (N, C, H, W) float32; N, H and W are free. The metadata
properties are JSON values; `ModelInfo` is what they hold.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from skystill import __version__
from skystill.classes import ClassMap, classes_from
from skystill.errors import ClassesError, ModelFileError

REQUIRED_KEYS = (
    "classes",
    "tile_size",
    "overlap",
    "network",
    "parameters",
    "multiply_adds_per_megapixel",
    "skystill_version",
)
_KNOWN = (*REQUIRED_KEYS, "resolution_m", "precision", "data", "scores")  # the rest came later, or is for others


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
        resolution_m: metres a pixel that it was trained at; None where the training data did not say.
        precision: "float32" or "int8".
        data: what it was trained on, in words.
        scores: figures on test images, such as {"miou": 0.6}; empty where it was not scored.
        version: of the SkyStill that wrote it.
    """

    classes: ClassMap
    network: str
    parameters: int
    multiply_adds_per_megapixel: int
    tile_size: int = 832
    overlap: int = 128
    resolution_m: float | None = None
    precision: str = "float32"
    data: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__

    def to_metadata(self) -> dict[str, str]:
        """The metadata properties, JSON values by key: ours, and those that the QGIS plugin Deepness reads."""
        own = {
            "classes": self.classes.to_dict(),
            "network": self.network,
            "parameters": self.parameters,
            "multiply_adds_per_megapixel": self.multiply_adds_per_megapixel,
            "tile_size": self.tile_size,
            "overlap": self.overlap,
            "resolution_m": self.resolution_m,
            "precision": self.precision,
            "data": self.data,
            "scores": dict(self.scores),
            "skystill_version": self.version,
        }
        return {key: json.dumps(value) for key, value in {**own, **self._for_deepness()}.items()}

    def _for_deepness(self) -> dict[str, Any]:
        """Its documentation says `tiles_size`, its code reads `tile_size`; resolution is in cm, overlap in percent."""
        keys: dict[str, Any] = {
            "model_type": "Segmentor",
            "class_names": dict(enumerate(self.classes.names)),
            "tiles_size": self.tile_size,
            "tiles_overlap": round(100 * self.overlap / self.tile_size),
            "standardization_mean": [0.0, 0.0, 0.0],
            "standardization_std": [1.0, 1.0, 1.0],
            "seg_thresh": 0.0,
            "seg_small_segment": 0,
        }
        return keys if self.resolution_m is None else {**keys, "resolution": 100 * self.resolution_m}


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
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # readers and writers need the cores too
    options.log_severity_level = 3
    try:
        # The memory arena keeps the largest size ever asked for (onnxruntime issue 11627), so it may not round up. With
        # tiles of bounded size it is the smaller of the two: 168 MB against 234 with two threads (docs/log.md).
        session = ort.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            provider_options=[{"arena_extend_strategy": "kSameAsRequested"}],
        )
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(
            f"{path} cannot be opened as an ONNX model ({reason}). Export it again, or take a whole copy."
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 4:
        taken, given = (", ".join(f"{value.name} {value.shape}" for value in values) for values in (inputs, outputs))
        raise ModelFileError(
            f"{path} takes {taken} and gives {given}; a segmentation model takes one image (N, 3, H, W) and gives "
            "logits (N, C, H, W)."
        )
    return session


def read_info(session: ort.InferenceSession, path: Path, classes: ClassMap | None = None) -> ModelInfo:
    """What an open model file says of itself.

    Args:
        session: from `open_session`.
        path: of the file, for messages.
        classes: taken for a file without our metadata, which is refused otherwise.

    Raises:
        ModelFileError: keys are missing or damaged, and the message names them; or classes of another number.
    """
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    missing = [key for key in REQUIRED_KEYS if key not in metadata]
    if missing and classes is None:
        raise ModelFileError(
            f"{path} lacks the metadata {', '.join(missing)}; it was not exported by SkyStill. "
            "Export the run again, or say what its classes are with --classes."
        )
    info = _foreign(path, classes) if missing and classes else _own(path, metadata)
    channels = session.get_outputs()[0].shape[1]
    if isinstance(channels, int) and channels != len(info.classes):
        raise ModelFileError(
            f"{path} gives {channels} classes; {info.classes.source} has {len(info.classes)} "
            f"({', '.join(info.classes.names)})."
        )
    return info


def _foreign(path: Path, classes: ClassMap) -> ModelInfo:
    return ModelInfo(classes, path.stem, 0, 0)


def _own(path: Path, metadata: Mapping[str, str]) -> ModelInfo:
    try:
        values: dict[str, Any] = {key: json.loads(text) for key, text in metadata.items() if key in _KNOWN}
        resolution = values.get("resolution_m")
        return ModelInfo(
            classes=classes_from(values["classes"], str(path)),
            network=str(values["network"]),
            parameters=int(values["parameters"]),
            multiply_adds_per_megapixel=int(values["multiply_adds_per_megapixel"]),
            tile_size=int(values["tile_size"]),
            overlap=int(values["overlap"]),
            resolution_m=None if resolution is None else float(resolution),
            precision=str(values.get("precision", "float32")),
            data=str(values.get("data", "")),
            scores=dict(values.get("scores", {})),
            version=str(values["skystill_version"]),
        )
    except (ValueError, TypeError, ClassesError) as error:
        raise ModelFileError(f"{path}: its metadata is damaged ({error}). Export the run again.") from error
