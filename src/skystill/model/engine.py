"""Engines that run a model file: ONNX Runtime, or OpenVINO where that is asked for."""

import importlib
import importlib.util
import math
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from skystill.classes import ClassMap
from skystill.errors import AnswersNotFinite, ModelFileError, SettingsError
from skystill.model import adapters
from skystill.model.adapters import RawCall, adapt
from skystill.model.choice import RUNTIMES
from skystill.model.file import ModelInfo, is_foreign, open_session, read_info
from skystill.model.foreign import Foreign, find_form
from skystill.model.trial import check_call, try_once
from skystill.symmetry import TEST_TIME_VIEWS, inverse, turned

Infer = adapters.Infer
"""A call of a network: planes (B, H, W) in the data type of its `InputSpec`, to logits (C, H, W) float32.

It may be called from several threads at the same time. The logits are valid until the same thread calls it again."""


@dataclass(frozen=True)
class Engine:
    """An open model file.

    Args:
        infer: runs the network.
        info: metadata of the file.
        runtime: "onnxruntime" or "openvino".
        notes: how a file of another program is run; empty for SkyStill's own files.
        whole_tiles: True if the input size of the network is fixed, so that tiles should not be smaller at edges.
    """

    infer: Infer
    info: ModelInfo
    runtime: str
    notes: tuple[str, ...] = ()
    whole_tiles: bool = False


def open_engine(
    path: Path,
    threads: int = 0,
    runtime: str = "onnxruntime",
    classes: ClassMap | None = None,
    input_scale: str | None = None,
    bands: Sequence[int | str] | None = None,
) -> Engine:
    """Open a model file to run it.

    A file is tried in a process of its own, with limits (`skystill.model.trial`). One of another program is then looked
    at and tried on small images. It runs if its answers can be turned into logits of the size of the image.

    Args:
        path: the model file.
        threads: number of threads that one call uses; 0 uses all cores.
        runtime: onnxruntime or openvino.
        classes: classes of a file without SkyStill's metadata; not used for other files.
        input_scale: scale of the pixels that a file of another program expects, as `parse_input` reads it. None takes
            what its metadata says, otherwise 0..255.
        bands: bands that a file of another program is fed, numbers or names. None is for red, green and blue. Not used
            for SkyStill's own files, which know their bands.

    Raises:
        ModelFileError: the file cannot be opened, its metadata is missing or damaged, or its input or its answers are
            not those of a segmentation model.
        SettingsError: there is no such runtime, or it is not installed; or `input_scale` is given for a SkyStill file.
    """
    if runtime not in RUNTIMES:
        raise SettingsError(f"no runtime is called {runtime!r}; there are {', '.join(RUNTIMES)}.")
    try_once(path, None if bands is None else len(bands))
    session = open_session(path, threads)
    info = read_info(session, path, classes)
    foreign: Foreign | None = None
    if is_foreign(session):
        call = _call_onnxruntime(session, path)
        foreign = find_form(path, session, call, info.classes, input_scale, bands)
        spec = replace(foreign.form.spec, resolution_m=info.resolution_m)
        info = replace(info, **foreign.tiles, input_spec=spec)
        infer = adapt(call, foreign.form)
    elif input_scale is not None:
        raise SettingsError(
            f"--input is for model files of other programs; {path} is SkyStill's own and knows its scale. Leave it out."
        )
    else:
        infer = _open_onnxruntime(session, path, info)
    notes, whole = ((foreign.note,), foreign.form.size is not None) if foreign else ((), False)
    if runtime == "openvino":
        if importlib.util.find_spec("openvino") is None:
            raise SettingsError('openvino is not installed; install it with pip install "skystill[openvino]".')
        other_call = _call_openvino(path, threads)
        infer = adapt(other_call, foreign.form) if foreign else _open_openvino(path, other_call, info)
    return Engine(infer, info, runtime, notes, whole)


def average_test_time_views(infer: Infer, views: int) -> Infer:
    """Return a network that averages its logits over flipped and rotated views of each tile.

    The result is more accurate, and the time grows by the number of views. With all 8 views, the prediction is exactly
    equivariant to rotations and flips.

    Args:
        infer: runs the network.
        views: number of views: 1, 2, 4 or 8.

    Raises:
        SettingsError: it is another number.
    """
    if views not in (1, 2, 4, 8):
        raise SettingsError(f"views is {views!r}; it is 1, 2, 4 or 8.")
    if views == 1:
        return infer
    axes = (1, 2)

    def over_mirrors(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        first, *others = TEST_TIME_VIEWS[min(views, 4)]
        # Copied, because the next call writes into the same buffer.
        total = turned(infer(turned(planes, first, axes)), inverse(first), axes).copy()
        for symmetry in others:
            total += turned(infer(turned(planes, symmetry, axes)), inverse(symmetry), axes)
        return total

    def infer_views(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        total = over_mirrors(planes)
        if views == 8:  # the same four for a quarter turn; turning floats is slow, so only their sum is turned back
            total += turned(over_mirrors(turned(planes, 1, axes)), inverse(1), axes)
        total /= views
        return total

    return infer_views


def _open_onnxruntime(session: ort.InferenceSession, path: Path, info: ModelInfo) -> Infer:
    """Run a SkyStill file in ONNX Runtime."""
    taken, kind = session.get_inputs()[0], info.input_spec.kind
    types = {f"tensor({kind.name})".replace("float32", "float"): kind, "tensor(float)": np.dtype(np.float32)}
    if taken.type not in types:
        raise ModelFileError(
            f"{path} takes {taken.type}; for {info.input_spec.labels}, {' or '.join(types)} was expected."
        )
    if info.parameters and types[taken.type] == kind:
        return _bound(session, path, info)
    call = _call_onnxruntime(session, path)

    def infer(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        answer = call(np.ascontiguousarray(planes, types[taken.type])[None])
        return _checked(path, np.asarray(answer[0], np.float32), (len(info.classes), *planes.shape[1:]))

    return infer


def _bound(session: Any, path: Path, info: ModelInfo) -> Infer:  # noqa: ANN401 - onnxruntime carries no types
    """Run a SkyStill file, whose logits have the size of the image, with one output buffer per thread.

    The buffer is kept between calls. ONNX Runtime would allocate new logits for each tile: 24 MB per megapixel, which
    the allocator then keeps twice for two threads (docs/log.md).
    """
    here, num_classes, kind = threading.local(), len(info.classes), info.input_spec.kind.type

    def infer(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        image = np.ascontiguousarray(planes, kind)[None]
        shape = (1, num_classes, *image.shape[2:])
        size = math.prod(shape)
        if getattr(here, "buffer", np.empty(0)).size < size:
            here.buffer = np.empty(size, np.float32)
        logits: npt.NDArray[np.float32] = here.buffer[:size].reshape(shape)
        binding = session.io_binding()
        binding.bind_input("image", "cpu", 0, kind, image.shape, image.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, shape, logits.ctypes.data)
        with _named(path, image):
            session.run_with_iobinding(binding)
        return _checked(path, logits[0], shape[1:])

    return infer


def _call_onnxruntime(session: ort.InferenceSession, path: Path) -> RawCall:
    name, given = session.get_inputs()[0].name, session.get_outputs()[0].name

    def call(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with _named(path, image):
            return np.asarray(session.run([given], {name: image})[0])

    return call


def _open_openvino(path: Path, call: RawCall, info: ModelInfo) -> Infer:
    """Run a SkyStill file in OpenVINO."""

    def infer(planes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        answer = call(np.ascontiguousarray(planes)[None])
        return _checked(path, np.asarray(answer[0], np.float32), (len(info.classes), *planes.shape[1:]))

    return infer


def import_openvino() -> ModuleType:
    """Import OpenVINO, without its package that counts every import at a server.

    Raises:
        ImportError: it is not installed.
    """
    if "openvino" not in sys.modules:  # OpenVINO goes on where the import of this package fails
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")


def _call_openvino(path: Path, threads: int) -> RawCall:
    openvino = import_openvino()
    core = openvino.Core()
    try:
        # CACHE_DIR stays unset, so that nothing is written beside the files. On CPUs with bf16 OpenVINO would round to
        # it, and one pixel in 600 would change its class (docs/log.md).
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        model = core.compile_model(path, "CPU", options)
    except RuntimeError as error:
        raise ModelFileError(f"{path} cannot be opened in OpenVINO ({str(error).splitlines()[0]}).") from error

    def call(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        request = model.create_infer_request()  # one per call: threads must not share a request
        with _named(path, image):
            return np.array(next(iter(request.infer([image]).values())))

    return call


@contextmanager
def _named(path: Path, image: npt.NDArray[Any]) -> Iterator[None]:
    """Check that the image is not too large, and turn every error of a runtime in the block into one that names it."""
    check_call(path, image.shape, image.size)
    try:
        yield
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime raises a class of its own for each of its codes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(f"{path} fails on an input of the shape {image.shape} ({reason[:300]}).") from error


def _checked(path: Path, logits: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return the logits (C, H, W) of a SkyStill file, checked.

    Looking at all values would cost 2 % of the time. So this looks at every eighth row, where NaN and minus infinity
    show, and `most_likely` at the largest value of each pixel, where NaN and plus infinity show.

    Raises:
        ModelFileError: the logits have another shape.
        AnswersNotFinite: a value is not finite.
    """
    if logits.shape != shape:
        raise ModelFileError(f"{path} gives {logits.shape} where {shape} was expected. Export it again.")
    with np.errstate(invalid="ignore"):
        least = float(logits[:, ::8].min())
    if not math.isfinite(least):
        raise AnswersNotFinite(path)
    return logits
