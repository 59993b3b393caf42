"""A model file that is fed any bands: its logits are sums over the 3 x 3 means of its normalised bands."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rasterio
from onnx import TensorProto, helper, numpy_helper
from rasterio.transform import from_origin

from skystill.classes import ClassMap
from skystill.model.file import ModelInfo
from skystill.raster.input_spec import Band, InputSpec

FOUR = ClassMap(("a", "b", "c", "d"), ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)))
_TYPES = {
    "uint8": (TensorProto.UINT8, 120, 50), "uint16": (TensorProto.UINT16, 3000, 900),
    "int16": (TensorProto.INT16, -200, 700), "float32": (TensorProto.FLOAT, 0.3, 0.1),
}  # fmt: skip


def spec_of(dtype: str, count: int, names: tuple[str, ...] = ()) -> InputSpec:
    """A spec whose bands have different means and standard deviations."""
    _, mean, std = _TYPES[dtype]
    bands = [
        Band(names[i] if names else "", i + 1, mean * (1 + i / 50), std * (1 + i / 30), mean - 6 * std, mean + 9 * std)
        for i in range(count)
    ]
    return InputSpec(tuple(bands), dtype)


def pixels_of(spec: InputSpec, height: int, width: int, seed: int = 3) -> np.ndarray[Any, Any]:
    """Planes (B, H, W) of noise around the means of the bands, inside their range."""
    rng = np.random.default_rng(seed)
    mean, std = (np.array([getattr(band, key) for band in spec.bands])[:, None, None] for key in ("mean", "std"))
    values = mean + std * np.clip(rng.normal(size=(len(spec), height, width)), -2.3, 2.3)
    return np.asarray(values if spec.kind.kind == "f" else np.rint(values), spec.kind)


def weights_of(spec: InputSpec) -> np.ndarray[Any, Any]:
    """(4, B), different for each class and band."""
    return np.random.default_rng(len(spec)).normal(size=(4, len(spec)))


def write_banded(path: Path, spec: InputSpec, tile: int = 128, hidden: int = 0, **more: Any) -> Path:
    """Write the file. With `hidden`, a convolution with ReLU and that many random channels stands in front."""
    count, kind = len(spec), _TYPES[spec.dtype][0]
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


def write_bands(path: Path, planes: np.ndarray[Any, Any], names: tuple[str, ...] = (), **options: Any) -> Path:
    """Write planes as a GeoTIFF with pixels of 0.5 m, with these descriptions."""
    profile = {
        "driver": "GTiff", "height": planes.shape[1], "width": planes.shape[2], "count": len(planes),
        "dtype": planes.dtype.name, "crs": "EPSG:32640", "transform": from_origin(500_000, 2_800_000, 0.5, 0.5),
        "photometric": "minisblack", "alpha": "no",
    }  # fmt: skip
    with rasterio.open(path, "w", **{**profile, **options}) as file:
        file.write(planes)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path
