"""A model file that is fed any bands: its logits are sums over the 3 x 3 means of its normalised bands."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from skystill.classes import ClassMap
from skystill.model.file import ModelInfo
from skystill.raster.input_spec import InputSpec

FOUR = ClassMap(("a", "b", "c", "d"), ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)))
_TYPES = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16, "int16": TensorProto.INT16,
          "float32": TensorProto.FLOAT}  # fmt: skip


def weights_of(spec: InputSpec) -> np.ndarray[Any, Any]:
    """(4, B), different for each class and band."""
    return np.random.default_rng(len(spec)).normal(size=(4, len(spec)))


def write_banded(path: Path, spec: InputSpec, tile: int = 128, hidden: int = 0, **more: Any) -> Path:
    """Write the file. With `hidden`, a convolution with ReLU and that many random channels stands in front."""
    count, kind = len(spec), _TYPES[spec.dtype]
    constants = {
        "mean": np.array([band.mean for band in spec.bands])[:, None, None],
        "std": np.array([band.std for band in spec.bands])[:, None, None],
        "weights": np.repeat(np.repeat(weights_of(spec)[:, :, None, None] / 9, 3, 2), 3, 3),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
    ]
    at = "normal"
    if hidden:
        rng = np.random.default_rng(1)
        constants["first"] = rng.normal(size=(hidden, count, 3, 3)) / np.sqrt(9 * count)
        constants["weights"] = rng.normal(size=(4, hidden, 3, 3)) / np.sqrt(9 * hidden)
        nodes += [
            helper.make_node("Conv", [at, "first"], ["raw"], name="first", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", ["raw"], ["hidden"]),
        ]
        at = "hidden"
    nodes.append(helper.make_node("Conv", [at, "weights"], ["logits"], name="last", kernel_shape=[3, 3], pads=[1] * 4))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", kind, ["n", count, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    info = ModelInfo(FOUR, "banded", 1, 1, tile_size=tile, overlap=16, input_spec=spec, **more)
    helper.set_model_props(model, info.to_metadata())
    onnx.save(model, path)
    return path


def truth(planes: np.ndarray[Any, Any], spec: InputSpec) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels (H, W) by numpy in float64, and where the best class is clearly the best (rounding cannot change it)."""
    mean, std = (np.array([getattr(band, key) for band in spec.bands])[:, None, None] for key in ("mean", "std"))
    normal = np.pad((planes.astype(float) - mean) / std, ((0, 0), (1, 1), (1, 1)))
    height, width = planes.shape[1:]
    means = sum(normal[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9
    logits = np.tensordot(weights_of(spec), means, 1)
    best = np.sort(logits, axis=0)
    return logits.argmax(axis=0).astype(np.uint8), best[-1] - best[-2] > 1e-3
