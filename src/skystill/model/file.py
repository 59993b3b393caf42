"""The model file: one ONNX file with the weights, the normalisation and the classes.

Its input is `image` (N, B, H, W): the B bands of its `InputSpec`, in the data type of the spec. Files without a spec
take red, green and blue in bytes. Its output is `logits` (N, C, H, W) float32. N, H and W may have any value. The
metadata properties are JSON values; `ModelInfo` describes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnxruntime as ort

from skystill import __version__
from skystill.classes import ClassMap, classes_from
from skystill.digests import KEY, ONNX_TRAILER, DigestDiffers, check_once
from skystill.errors import ClassesError, ModelFileError, shortened
from skystill.model.external import check_external_data
from skystill.parsing import built_from, parse_json
from skystill.raster.input_spec import RGB, InputSpec, spec_from

REQUIRED_KEYS = (
    "classes",
    "tile_size",
    "overlap",
    "network",
    "parameters",
    "multiply_adds_per_megapixel",
    "skystill_version",
)
# The last five keys are optional. They were added later, or only inform other programs.
_KNOWN = (*REQUIRED_KEYS, "input_spec", "resolution_m", "precision", "data", "scores")


_MOST_TILE = 2**16  # pixels


@dataclass(frozen=True)
class ModelInfo:
    """The metadata of a model file.

    Args:
        classes: names and colours of the C classes.
        network: name of the network in the table of sizes.
        parameters: number of learnt values; 0 if unknown.
        multiply_adds_per_megapixel: multiply-adds for 10^6 pixels of input; 0 if unknown.
        tile_size: recommended side of the tiles in pixels.
        overlap: recommended number of pixels that neighbouring tiles share, so that no borders are visible.
        input_spec: what the network is fed.
        precision: "float32" or "int8".
        data: what the network was trained on, in words.
        scores: figures on test images, such as {"miou": 0.6}; empty if the network was not scored.
        version: version of SkyStill that wrote the file.
    """

    classes: ClassMap
    network: str
    parameters: int
    multiply_adds_per_megapixel: int
    tile_size: int = 832
    overlap: int = 128
    input_spec: InputSpec = RGB
    precision: str = "float32"
    data: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    version: str = __version__

    @property
    def resolution_m(self) -> float | None:
        """Metres on the ground per pixel of the training data; None if it is unknown."""
        return self.input_spec.resolution_m

    def with_resolution(self, metres: float | None) -> "ModelInfo":
        """Return the metadata with another ground resolution, or with none."""
        return replace(self, input_spec=replace(self.input_spec, resolution_m=metres))

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata properties as JSON values by key.

        They are SkyStill's own properties and those that the QGIS plugin Deepness reads.
        """
        own = {
            "classes": self.classes.to_dict(),
            "network": self.network,
            "parameters": self.parameters,
            "multiply_adds_per_megapixel": self.multiply_adds_per_megapixel,
            "tile_size": self.tile_size,
            "overlap": self.overlap,
            "input_spec": self.input_spec.to_dict(),
            "resolution_m": self.resolution_m,
            "precision": self.precision,
            "data": self.data,
            "scores": dict(self.scores),
            "skystill_version": self.version,
        }
        return {key: json.dumps(value) for key, value in {**own, **self._for_deepness()}.items()}

    def _for_deepness(self) -> dict[str, object]:
        """Return the additional properties of Deepness.

        The documentation of Deepness says `tiles_size`; its code reads `tile_size`, which is among SkyStill's own
        properties. The resolution is in cm per pixel, the overlap in percent.
        """
        keys: dict[str, object] = {
            "model_type": "Segmentor",
            "class_names": dict(enumerate(self.classes.names)),
            "tiles_size": self.tile_size,
            "tiles_overlap": round(100 * self.overlap / self.tile_size),
            "standardization_mean": [0.0] * len(self.input_spec),
            "standardization_std": [1.0] * len(self.input_spec),
            "seg_thresh": 0.0,
            "seg_small_segment": 0,
        }
        return keys if self.resolution_m is None else {**keys, "resolution": round(100 * self.resolution_m, 6)}


def open_session(path: Path, threads: int = 0) -> ort.InferenceSession:
    """Open a model file in ONNX Runtime on the CPU.

    Args:
        path: the model file.
        threads: number of threads that one call uses; 0 uses all cores.

    Raises:
        ModelFileError: the file is missing, truncated or not an ONNX model, takes weights from a file outside its
            folder, or does not take one image (N, B, H, W) and give logits (N, C, H, W). Or its bytes have changed
            since SkyStill wrote it.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file.")
    check_digest(path)
    check_external_data(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # At the second call with a shape, ONNX Runtime would take a second block for it, and keep the memory of the first:
    # 526 instead of 352 bytes per pixel for two threads, at the same speed (docs/log.md).
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # reading and writing need the cores too
    options.log_severity_level = 3
    try:
        # The memory arena keeps the largest size that was ever requested (onnxruntime issue 11627), so it must not
        # round sizes up. Because tiles have a bounded size, the peak memory is lower with the arena than without:
        # 168 MB against 234 MB with two threads (docs/log.md).
        session = ort.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            provider_options=[{"arena_extend_strategy": "kSameAsRequested"}],
        )
        session.get_modelmeta().custom_metadata_map  # noqa: B018 - raises if a property is not UTF-8, and so do names
        inputs, outputs = session.get_inputs(), session.get_outputs()
        _ = [(value.name, value.shape) for value in (*inputs, *outputs)]
    except Exception as error:
        reason = shortened(error) or type(error).__name__
        raise ModelFileError(
            f"{path} cannot be opened as an ONNX model ({reason}). Export it again, or take a whole copy."
        ) from error
    if len(inputs) != 1 or not outputs or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 4:
        taken, given = (", ".join(f"{value.name} {value.shape}" for value in values) for values in (inputs, outputs))
        raise ModelFileError(
            f"{path} takes {taken} and gives {given}; a segmentation model takes one image (N, B, H, W) and gives "
            "logits (N, C, H, W)."
        )
    return session


def check_digest(path: Path) -> None:
    """Check a model file against its digest, if it has one. Each process does this once for each file.

    Raises:
        ModelFileError: the file has changed since it was written, or it cannot be read.
    """
    try:
        check_once(path, ONNX_TRAILER.check)
    except DigestDiffers as error:
        raise ModelFileError(
            f"{path} is damaged: {error}. Take a whole copy, or export it again. If another program changed it on "
            f"purpose, take {KEY} out of its metadata."
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def read_info(session: ort.InferenceSession, path: Path, classes: ClassMap | None = None) -> ModelInfo:
    """Return the metadata of an open model file.

    Args:
        session: result of `open_session`.
        path: path of the file, for messages.
        classes: classes of a file without SkyStill's metadata. If this is None, such a file is refused.

    Raises:
        ModelFileError: metadata is missing (the message names the keys) or damaged, or the number of classes or of
            bands is not that of the network.
    """
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    missing = [key for key in REQUIRED_KEYS if key not in metadata]
    if missing and classes is None:
        raise ModelFileError(
            f"{path} lacks the metadata {', '.join(missing)}; it was not exported by SkyStill. "
            "Export the run again, or say what its classes are with --classes."
        )
    if missing and classes:  # `find_form` checks the number of its classes, because its layout is not known here
        return _foreign(path, metadata, classes)
    info = _own(path, metadata)
    channels = session.get_outputs()[0].shape[1]
    if isinstance(channels, int) and channels != len(info.classes):
        raise ModelFileError(
            f"{path} gives {channels} classes; {info.classes.source} has {len(info.classes)} "
            f"({', '.join(info.classes.names)})."
        )
    bands = session.get_inputs()[0].shape[1]
    if isinstance(bands, int) and bands != len(info.input_spec):
        raise ModelFileError(
            f"{path} takes {bands} bands; its metadata names {len(info.input_spec)} ({info.input_spec.labels}). Export "
            "the run again."
        )
    return info


def is_foreign(session: ort.InferenceSession) -> bool:
    """Return True if an open model file lacks SkyStill's metadata: it comes from, or is meant for, another program."""
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return not set(REQUIRED_KEYS) <= metadata.keys()


def _foreign(path: Path, metadata: Mapping[str, str], classes: ClassMap) -> ModelInfo:
    """Return what is known of a file of another program. Deepness states the resolution in cm per pixel."""
    try:
        resolution = float(parse_json(metadata["resolution"])) / 100
    except (KeyError, ValueError, TypeError, OverflowError):
        resolution = 0.0
    return ModelInfo(classes, path.stem, 0, 0).with_resolution(resolution if resolution > 0 else None)


def _own(path: Path, metadata: Mapping[str, str]) -> ModelInfo:
    def build(values: Mapping[str, Any]) -> ModelInfo:
        return ModelInfo(
            classes=classes_from(values["classes"], str(path)),
            network=str(values["network"]),
            parameters=int(values["parameters"]),
            multiply_adds_per_megapixel=int(values["multiply_adds_per_megapixel"]),
            tile_size=int(values["tile_size"]),
            overlap=int(values["overlap"]),
            input_spec=_input_spec(values),
            precision=str(values.get("precision", "float32")),
            data=str(values.get("data", "")),
            scores=dict(values.get("scores", {})),
            version=str(values["skystill_version"]),
        )

    def refuse(why: str) -> ModelFileError:
        return ModelFileError(f"{path}: its metadata is damaged ({why}). Export the run again.")

    known = {key: text for key, text in metadata.items() if key in _KNOWN}
    values = built_from(known, lambda texts: {key: parse_json(text) for key, text in texts.items()}, refuse)
    try:
        info = built_from(values, build, refuse)
    except ClassesError as error:
        raise refuse(shortened(error)) from error
    if not (0 < info.tile_size <= _MOST_TILE and 0 <= info.overlap < info.tile_size):
        raise refuse(f"tiles of {info.tile_size} pixels that share {info.overlap}")
    return info


def _input_spec(values: Mapping[str, Any]) -> InputSpec:
    """Return the spec of a file. Files of earlier versions take colours, and have their resolution in a key of its own.

    Raises:
        ValueError, TypeError, KeyError, IndexError, AttributeError: the metadata is damaged.
    """
    if "input_spec" in values:
        return spec_from(values["input_spec"])
    resolution = values.get("resolution_m")
    return RGB if resolution is None else replace(RGB, resolution_m=float(resolution))
