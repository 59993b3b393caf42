"""`skystill export`: writes the network of a run for ONNX Runtime, for the QGIS plugin Deepness, or for OpenVINO."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from skystill.data import Pair, files_of_data, find_named, find_pairs, read_image
from skystill.data.maps import block_of
from skystill.data.resolution import with_resolution
from skystill.errors import DataError, ModelFileError, SettingsError, SkystillError
from skystill.model.engine import import_openvino
from skystill.model.file import ModelInfo, open_session, read_info
from skystill.model.ir import lower_ir, model_bytes
from skystill.model.stac import write_stac_item
from skystill.model.trial import try_once
from skystill.progress import Note, OnProgress, ignore_progress, phase
from skystill.raster.input_spec import InputSpec
from skystill.raster.overwriting import check_outputs
from skystill.report.records import read_results, read_split
from skystill.run_folder import RunFolder, hold_output, is_own_data, written_whole
from skystill.settings import ExportSettings
from skystill.train.compress.export import TOLERANCE, ExportDiffers, describe, export_network, to_onnx
from skystill.train.networks.examples import input_spec_of, noise_images
from skystill.train.networks.weights import read_network

_DEEPNESS_OPSET = 17  # of the same ONNX release as IR version 8 (model/ir.py)


def export_run(settings: ExportSettings, on_progress: OnProgress = ignore_progress) -> tuple[Path, ModelInfo]:
    """Write the network of a run in the format of the settings.

    Args:
        settings: the run, the format, and the file to write. With `stac`, a STAC item is written beside it.
        on_progress: receives a `Progress` while the file is written.

    Returns:
        The path of the file, and its metadata.

    Raises:
        RunFolderError: the folder is not a run, or another process writes the file.
        CheckpointError: the run has not finished, or its weights are damaged.
        SettingsError: the suffix of the file or `--stac` does not fit the format, the library of the format is not
            installed, or a file to write belongs to the run or its data.
        ExportDiffers: the written file does not compute what the network computes.
    """
    folder = RunFolder(settings.run)
    config = folder.read_config()
    data = Path(str(config["data"]))
    network, record = read_network(folder.weights)
    info = describe(record.network, network, record.classes, data=data.name)
    fed = _with_resolution(record.input_spec, settings, folder, data)
    info = replace(info, input_spec=fed, scores=_scores(folder, config, on_progress))
    suffix = {"onnx": ".onnx", "deepness": ".onnx", "openvino": ".xml"}[settings.format]
    if settings.out.suffix != suffix:
        raise SettingsError(f"--out {settings.out}: a file for {settings.format} ends in {suffix}.")
    if settings.stac and settings.format != "onnx":
        raise SettingsError("--stac describes an ONNX file for SkyStill; leave it out, or use --format onnx.")
    _check_outputs(settings, folder, data)
    images = _test_images(folder, data, fed) if settings.format == "onnx" else []
    with hold_output(settings.out, on_progress), phase(f"writing {settings.out.name}", on_progress):
        if settings.format == "onnx":
            export_network(network, info, settings.out, images)
        elif settings.format == "deepness":
            _export_for_deepness(network, info, settings.out)
        else:
            _export_for_openvino(network, info, settings.out)
        if settings.stac:
            write_stac_item(settings.out, settings.out.with_suffix(".stac.json"))
    return settings.out, info


def _check_outputs(settings: ExportSettings, folder: RunFolder, data: Path) -> None:
    """Refuse to overwrite the run's own model file, its other files, and the data it was trained on."""
    outputs = [("model file", settings.out)]
    if settings.format == "openvino":
        outputs += [("weights", settings.out.with_suffix(".bin")), ("scratch file", _scratch_of(settings.out))]
    if settings.stac:
        outputs.append(("STAC item", settings.out.with_suffix(".stac.json")))
    check_outputs(outputs, [*folder.own_files, *files_of_data(data)])


def _scratch_of(path: Path) -> Path:
    """Return the ONNX file from which the files of OpenVINO are made."""
    return path.with_suffix(".onnx.part")


def _scores(folder: RunFolder, config: Mapping[str, Any], on_progress: OnProgress) -> dict[str, float]:
    """Return the scores of the run's own network on its own test images, or none if it was not evaluated on these."""
    if not folder.results.exists():
        return {}
    results, own = read_results(folder), read_split(folder)
    names = {block_of(key) for key in own.test}
    if not is_own_data(config, Path(results.data.folder)) or set(results.data.test_images) != names:
        on_progress(Note(
            f"{folder.results} has the scores on other images ({results.data.folder}, {results.data.split}) than the "
            "test images of the run, and the file is written without scores. To have them: skystill evaluate "
            f"{folder.path}"
        ))  # fmt: skip
        return {}
    scores = results.models["student" if "teacher" in config else "teacher"].scores
    found = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def _test_images(folder: RunFolder, data: Path, fed: InputSpec) -> list[npt.NDArray[Any]]:
    """Return up to two test images for the comparison of logits, or none if the data is no longer there."""
    return [read_image(pair.image, fed, pair.bounds)[:1024, :1024] for pair in _pairs(folder, data, "test")[:2]]


def _with_resolution(fed: InputSpec, settings: ExportSettings, folder: RunFolder, data: Path) -> InputSpec:
    """Return what the network is fed with a ground resolution: that of the settings, of the run, or of its images.

    Runs of earlier versions stored it in the model file only, or not at all.
    """
    if settings.resolution is not None:
        return replace(fed, resolution_m=settings.resolution)
    with contextlib.suppress(ModelFileError):
        try_once(folder.model)
        stored = read_info(open_session(folder.model), folder.model).resolution_m
        if stored is not None:
            return replace(fed, resolution_m=stored)
    return with_resolution(fed, [pair.image for pair in _pairs(folder, data, "train")])[0]


def _pairs(folder: RunFolder, data: Path, part: Literal["train", "test"]) -> list[Pair]:
    """Return the pairs of one part of the run's split, or none if the data is no longer there."""
    if not folder.split.exists():
        return []
    keys = getattr(read_split(folder), part)
    with contextlib.suppress(DataError):
        found = find_named(find_pairs(data).pairs, keys)
        return [found[key] for key in keys if key in found]
    return []


class _ForDeepness(nn.Module):
    """Adapter of a network to Deepness, which divides all values by 255 and expects probabilities.

    Deepness divides in 64 bits and passes on 32. Multiplied by 255, bytes are what they were; integers of 16 bits are,
    after rounding.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._wide = input_spec_of(network).dtype in ("uint16", "int16")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (1, B, S, S) float, divided by 255, to probabilities (1, C, S, S)."""
        values = images * 255.0
        logits: Tensor = self.network(values.round() if self._wide else values)
        return torch.softmax(logits, dim=1)


def _export_for_deepness(network: nn.Module, info: ModelInfo, path: Path) -> None:
    """Write an ONNX file of fixed square size in opset 17, with the metadata keys that the code of Deepness reads.

    Raises:
        ExportDiffers: the file does not compute what the network computes.
    """
    side = 512  # pixels; Deepness runs one tile at a time and keeps the whole result in memory
    info = replace(info, tile_size=side)
    wrapped = _ForDeepness(network).eval()
    image = noise_images(input_spec_of(network), 1, side, side).float() / 255.0
    model = _to_opset_17(to_onnx(wrapped, image, 18))
    lower_ir(model)
    metadata = info.to_metadata()
    onnx.helper.set_model_props(model, {key: metadata[key] for key in metadata if key not in ("classes", "scores")})
    with written_whole(path) as part:
        part.write_bytes(model_bytes(model))
        found = open_session(part).run(None, {"image": image.numpy()})[0]
        with torch.no_grad():
            difference = float(np.abs(found - wrapped(image).numpy()).max())
        if not difference <= TOLERANCE:
            raise ExportDiffers(path, difference)


def _to_opset_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph from opset 18 to opset 17, in place.

    The converter of onnx cannot convert Pad to the older opset. The operators that SkyStill's networks use differ
    between the two opsets only in attributes that have their default values.
    """
    for node in model.graph.node:
        if node.op_type == "Resize":
            new = [a for a in node.attribute if a.name not in ("antialias", "keep_aspect_ratio_policy", "axes")]
            del node.attribute[:]
            node.attribute.extend(new)
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = _DEEPNESS_OPSET
    return model


def _export_for_openvino(network: nn.Module, info: ModelInfo, path: Path) -> None:
    """Write the two files of OpenVINO, .xml and .bin, in float32.

    The .bin file appears first, so that there is never an .xml file without it.

    Raises:
        SettingsError: openvino is not installed.
        SkystillError: the logits of OpenVINO differ from torch's.
    """
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise SettingsError('openvino is not installed; install it with pip install "skystill[openvino]".') from error
    source = _scratch_of(path)
    weights = path.with_suffix(".bin")
    try:
        export_network(network, info, source)
        model = openvino.convert_model(source)
        for key, value in info.to_metadata().items():
            model.set_rt_info(value, ["skystill", key])
        with written_whole(weights) as weights_part, written_whole(path) as part:
            openvino.serialize(model, part, weights_part)
        _check_openvino(openvino, path, network)
    finally:
        source.unlink(missing_ok=True)


def _check_openvino(openvino: Any, path: Path, network: nn.Module) -> None:  # noqa: ANN401 - a module without types
    image = noise_images(input_spec_of(network), 1, 75, 141).numpy()
    found = next(iter(openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image]).values()))
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    difference = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    if not difference <= 10 * TOLERANCE:  # OpenVINO reorders sums more freely than ONNX Runtime
        raise SkystillError(f"{path}: OpenVINO's logits differ from torch's by {difference:.2g}.")
