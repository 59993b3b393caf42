"""Quantise a float model file to INT8: static, per channel, calibrated on real images.

Layers that cost too much accuracy stay in float. The caller gives the function that measures the accuracy of a file.
Needs `onnx` (`pip install "skystill[quantize]"`), but not torch.
"""

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from skystill.digests import ONNX_TRAILER
from skystill.errors import ModelFileError, SettingsError
from skystill.model.file import open_session, read_info
from skystill.progress import Message, OnProgress, ignore_progress, phase, tracked
from skystill.raster.scratch import scratch_folder
from skystill.run_folder import naming_failed_writes, written_whole

try:
    import onnx
    from onnx import helper, numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from skystill.model.ir import lower_ir, model_bytes
except ImportError as error:
    raise SettingsError(f'{error}: quantising needs onnx. Install it with pip install "skystill[quantize]".') from error

Images = Sequence[npt.NDArray[Any]]
Score = Callable[[Path], float]
"""A function that returns the mIoU of a model file on validation images."""

_NOT_COMPUTED = ("DepthToSpace", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
"""Operations that only move values. They work on bytes as well as on floats."""


@dataclass(frozen=True)
class Quantized:
    """The result of quantising a model file.

    Args:
        float_score: mIoU of the float file.
        score: mIoU of the INT8 file.
        kept: names of the layers that stay in float.
        layers: number of layers that could be quantised.
    """

    float_score: float
    score: float
    kept: tuple[str, ...]
    layers: int


def quantize_model(
    path: Path,
    out: Path,
    images: Images,
    score: Score,
    max_drop: float = 0.005,
    on_progress: OnProgress = ignore_progress,
) -> Quantized:
    """Quantise a model file, and keep layers in float until the loss of accuracy is small enough.

    All layers are quantised first. If that costs more than `max_drop`, the layers are ranked by how much the logits
    change when only that layer is quantised. The worst layers then stay in float: 1, then 2, 4, ..., until the loss of
    accuracy is small enough.

    Args:
        path: a float model file.
        out: the INT8 file, which appears complete or not at all.
        images: calibration images, each (H, W, B) in the data type of the file's spec; 8 to 32 crops are enough.
        score: returns the mIoU of a model file. Called once for the float file and once for each attempt.
        max_drop: largest accepted drop of the mIoU, as a fraction (0.005 is half a point).
        on_progress: called with a `Message` about each attempt, and with a `Progress` for each step.

    Raises:
        ModelFileError: the file cannot be opened, is not SkyStill's, or is not in float.
        SettingsError: there are no images, or the loss is too large with all layers in float.
        DiskFull: it cannot be written.
    """
    info = read_info(open_session(path), path)
    if info.precision != "float32":
        raise ModelFileError(f"{path} is {info.precision} already; quantise the float32 file that it came from.")
    if not images:
        raise SettingsError("there are no images to calibrate on; give --data a folder with images.")
    with scratch_folder() as scratch, _quiet(scratch):
        prepared = scratch / "prepared.onnx"
        with naming_failed_writes(prepared, scratch=True), phase("preparing", on_progress, None):
            source = prepared.with_name("float.onnx")
            source.write_bytes(ONNX_TRAILER.opened(path.read_bytes()))  # the steps keep properties, and change the rest
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
        layers = [node.name for node in _load(prepared).graph.node if node.op_type in ("Conv", "ConvTranspose")]
        float_score = score(path)
        ranked, kept = list[str](), 0
        while True:
            part = scratch / "int8.onnx"
            with phase("calibrating", on_progress):
                _quantize(prepared, part, images, keep=ranked[:kept])
            found = score(part)
            done = f"{len(layers) - kept} of {len(layers)} layers in INT8"
            on_progress(Message(f"{done}: mIoU {found:.4f} (float {float_score:.4f})"))
            if float_score - found <= max_drop or kept >= len(layers):
                break
            ranked = ranked or _rank(prepared, scratch, layers, images[:4], on_progress)
            kept = min(max(1, 2 * kept), len(layers))
        _check_drop(out, float_score, found, max_drop)
        model = _load(part)
        scores = {**info.scores, "validation_miou": round(found, 4), "validation_miou_float": round(float_score, 4)}
        del model.metadata_props[:]
        helper.set_model_props(model, replace(info, precision="int8", scores=scores).to_metadata())
        with written_whole(out) as target:
            target.write_bytes(model_bytes(model))
    return Quantized(float_score, found, tuple(ranked[:kept]), len(layers))


def _check_drop(out: Path, before: float, now: float, most: float) -> None:
    """Refuse to write a file that loses too much: beside the layers, what lies between them is rounded."""
    if before - now > most:
        raise SettingsError(
            f"{out} is not written: even with all layers in float the rounding between them costs "
            f"{100 * (before - now):.1f} points of mIoU ({100 * before:.1f} to {100 * now:.1f}), and --max-drop allows "
            f"{100 * most:g}. Allow more, or use the float file."
        )


def _load(path: Path) -> onnx.ModelProto:
    """Load a file in the folder for temporary files that a library has just written."""
    with naming_failed_writes(path, scratch=True):
        return onnx.load(path)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Images) -> None:
        self._planes = (np.ascontiguousarray(image.transpose(2, 0, 1))[None] for image in images)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        planes = next(self._planes, None)
        return None if planes is None else {"image": planes}


def _quantize(prepared: Path, out: Path, images: Images, keep: Sequence[str] = (), only: Sequence[str] = ()) -> None:
    with naming_failed_writes(out, scratch=True):
        quantize_static(
            prepared,
            out,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep),
            nodes_to_quantize=list(only) or None,
        )
    model = _load(out)
    _take_bytes(model)
    _give_bytes(model)
    _shorten_names(model)
    lower_ir(model)
    with naming_failed_writes(out, scratch=True):
        out.write_bytes(model.SerializeToString())


def _rank(prepared: Path, scratch: Path, layers: Sequence[str], images: Images, on_progress: OnProgress) -> list[str]:
    """Sort layers by how much the logits change when only that layer is quantised, the worst first."""
    expected = _logits(prepared, images)
    moved: dict[str, float] = {}
    for layer in tracked(layers, "ranking the layers", on_progress, leaves_line=True):
        part = scratch / "one.onnx"
        _quantize(prepared, part, images, only=[layer])
        moved[layer] = float(np.mean((_logits(part, images) - expected) ** 2))
    return sorted(layers, key=lambda layer: -moved[layer])


def _logits(path: Path, images: Images) -> npt.NDArray[np.float32]:
    session = open_session(path)
    found = [session.run(None, {"image": image.transpose(2, 0, 1)[None]})[0].ravel() for image in images]
    return np.concatenate(found)


def _take_bytes(model: onnx.ModelProto) -> None:
    """Remove the quantisation of the normalised image, if it is one of three bands of bytes.

    The image itself consists of bytes with the same meaning (train/compress/export.py). Other images are normalised by
    each band's own mean and standard deviation, and are quantised behind that.
    """
    nodes = model.graph.node
    normalize = next((node for node in nodes if node.name == "normalize"), None)
    if normalize is None:
        return
    readers = [node for node in nodes if normalize.output[0] in node.input]
    if [node.op_type for node in readers] != ["QuantizeLinear"]:
        return
    back = next(node for node in nodes if readers[0].output[0] in node.input)
    for node in (readers[0], back):
        nodes.remove(node)
    _rewire(model, back.output[0], normalize.output[0])


def _give_bytes(model: onnx.ModelProto) -> None:
    """Move the last DequantizeLinear behind the pixel shuffle and the crop, which then move a quarter of the memory.

    This is done only if the operations at the end of the graph move values without changing them. Any other graph stays
    as it is.
    """
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    output = graph.output[0].name
    node = made_by[output]
    tail = []
    while node.op_type in _NOT_COMPUTED:
        tail.append(node)
        node = made_by[node.input[0]]
    if not tail or node.op_type != "DequantizeLinear":
        return
    tail[-1].input[0] = node.input[0]
    for moved in tail:
        moved.output[0] += "_bytes"
    for later, earlier in itertools.pairwise(tail):
        later.input[0] = earlier.output[0]
    graph.node.remove(node)
    node.input[0] = tail[0].output[0]
    node.output[0] = output
    graph.node.append(node)


def _rewire(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _shorten_names(model: onnx.ModelProto) -> None:
    """Give inner values short names, and store equal constants such as scales only once.

    In a file of 400 KB they take a noticeable part of the size.
    """
    graph = model.graph
    fixed = {value.name for value in (*graph.input, *graph.output)}
    first: dict[bytes, str] = {}
    short: dict[str, str] = {"": ""}
    kept = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        content = f"{tensor.data_type}{tensor.dims}".encode() + values.tobytes()
        same = first.setdefault(content, tensor.name)
        if same == tensor.name:
            kept.append(numpy_helper.from_array(values, tensor.name))
        short[tensor.name] = same
    names = {name: f"w{index}" for index, name in enumerate(first.values())}
    short = {name: names.get(same, same) for name, same in short.items()}
    for tensor in kept:
        tensor.name = names[tensor.name]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for names_of in (node.input, node.output):
            for place, name in enumerate(names_of):
                if name not in fixed and name not in short:
                    short[name] = f"v{len(short)}"
                names_of[place] = short.get(name, name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]


@contextlib.contextmanager
def _quiet(scratch: Path) -> Iterator[None]:
    """Silence the quantiser, which warns about steps that were done here already, and give its files a folder."""
    before, tempdir = logging.root.manager.disable, tempfile.tempdir
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    tempfile.tempdir = str(scratch)
    try:
        yield
    finally:
        tempfile.tempdir = tempdir
        logging.disable(before)
        onnxruntime.set_default_logger_severity(2)
