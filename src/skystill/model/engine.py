"""Engines that run a model file: ONNX Runtime, or OpenVINO if it is installed and faster."""

import importlib.util
import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap
from skystill.errors import ModelFileError, SettingsError
from skystill.model.file import ModelInfo, open_session, read_info
from skystill.symmetry import TEST_TIME_VIEWS, inverse, turned

Infer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A call of a network: planes (3, H, W) uint8 RGB, 0 to 255, to logits (C, H, W) float32.

It may be called from several threads at the same time. The logits are valid until the same thread calls it again."""

RUNTIMES = ("auto", "onnxruntime", "openvino")
_TRIAL_SIDE, _TRIALS = 512, 3


@dataclass(frozen=True)
class Engine:
    """An open model file.

    Args:
        infer: runs the network.
        info: metadata of the file.
        runtime: "onnxruntime" or "openvino".
    """

    infer: Infer
    info: ModelInfo
    runtime: str


def open_engine(path: Path, threads: int = 0, runtime: str = "onnxruntime", classes: ClassMap | None = None) -> Engine:
    """Open a model file to run it.

    Args:
        path: the model file.
        threads: number of threads that one call uses; 0 uses all cores.
        runtime: onnxruntime, openvino or auto. If both are installed, auto runs both for a moment and keeps the faster.
        classes: classes of a file without SkyStill's metadata; not used for other files.

    Raises:
        ModelFileError: the file cannot be opened, or its metadata is missing or damaged.
        SettingsError: there is no such runtime, or it is not installed.
    """
    if runtime not in RUNTIMES:
        raise SettingsError(f"no runtime is called {runtime!r}; there are {', '.join(RUNTIMES)}.")
    infer, info = _open_onnxruntime(path, threads, classes)
    there = importlib.util.find_spec("openvino") is not None
    if runtime == "openvino" and not there:
        raise SettingsError('openvino is not installed; install it with pip install "skystill[openvino]".')
    if runtime == "onnxruntime" or not there:
        return Engine(infer, info, "onnxruntime")
    other = _open_openvino(path, threads)
    if runtime == "openvino" or _trial(other) < _trial(infer):
        return Engine(other, info, "openvino")
    return Engine(infer, info, "onnxruntime")


def average_test_time_views(infer: Infer, views: int) -> Infer:
    """Return a network that averages its logits over flipped and rotated views of each tile.

    The result is more accurate, and the time grows by the number of views. With all 8 views, the prediction is exactly
    equivariant to rotations and flips.

    Args:
        infer: runs the network.
        views: number of views: 1, 2, 4 or 8.
    """
    if views == 1:
        return infer
    axes = (1, 2)

    def over_mirrors(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        first, *others = TEST_TIME_VIEWS[min(views, 4)]
        # Copied, because the next call writes into the same buffer.
        total = turned(infer(turned(planes, first, axes)), inverse(first), axes).copy()
        for symmetry in others:
            total += turned(infer(turned(planes, symmetry, axes)), inverse(symmetry), axes)
        return total

    def infer_views(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        total = over_mirrors(planes)
        if views == 8:  # the same four for a quarter turn; turning floats is slow, so only their sum is turned back
            total += turned(over_mirrors(turned(planes, 1, axes)), inverse(1), axes)
        total /= views
        return total

    return infer_views


def _open_onnxruntime(path: Path, threads: int, classes: ClassMap | None) -> tuple[Infer, ModelInfo]:
    session = open_session(path, threads)
    info = read_info(session, path, classes)
    taken = session.get_inputs()[0]
    given = session.get_outputs()[0].name
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    if taken.type not in kinds:
        raise ModelFileError(f"{path} takes {taken.type}; an image is tensor(uint8), or tensor(float) from 0 to 255.")
    kind: Any = kinds[taken.type]
    if info.parameters and kind is np.uint8:
        return _bound(session, len(info.classes)), info

    def infer(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        image = np.ascontiguousarray(planes, kind)[None]
        return np.asarray(session.run([given], {taken.name: image})[0][0], np.float32)

    return infer, info


def _bound(session: Any, num_classes: int) -> Infer:  # noqa: ANN401 - onnxruntime carries no types
    """Run a SkyStill file, whose logits have the size of the image, with one output buffer per thread.

    The buffer is kept between calls. ONNX Runtime would allocate new logits for each tile: 24 MB per megapixel, which
    the allocator then keeps twice for two threads (docs/log.md).
    """
    here = threading.local()

    def infer(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        image = np.ascontiguousarray(planes)[None]
        shape = (1, num_classes, *image.shape[2:])
        size = math.prod(shape)
        if getattr(here, "buffer", np.empty(0)).size < size:
            here.buffer = np.empty(size, np.float32)
        logits: npt.NDArray[np.float32] = here.buffer[:size].reshape(shape)
        binding = session.io_binding()
        binding.bind_input("image", "cpu", 0, np.uint8, image.shape, image.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, shape, logits.ctypes.data)
        session.run_with_iobinding(binding)
        first: npt.NDArray[np.float32] = logits[0]
        return first

    return infer


def _open_openvino(path: Path, threads: int) -> Infer:
    import openvino

    core = openvino.Core()
    try:
        # CACHE_DIR stays unset, so that nothing is written beside the files. On CPUs with bf16 OpenVINO would round to
        # it, and one pixel in 600 would change its class (docs/log.md).
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        model = core.compile_model(path, "CPU", options)
    except RuntimeError as error:
        raise ModelFileError(f"{path} cannot be opened in OpenVINO ({str(error).splitlines()[0]}).") from error

    def infer(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        request = model.create_infer_request()  # one per call: threads must not share a request
        found = request.infer([np.ascontiguousarray(planes)[None]])
        return np.array(next(iter(found.values()))[0], np.float32)

    return infer


def _trial(infer: Infer) -> float:
    """Return the seconds that a small tile takes: the median of a few calls, after one warm-up call."""
    planes = np.zeros((3, _TRIAL_SIDE, _TRIAL_SIDE), np.uint8)
    infer(planes)
    times = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        infer(planes)
        times.append(time.perf_counter() - began)
    return statistics.median(times)
