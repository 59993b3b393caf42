"""Model files as other programs write them. Each pixel's class is plain to see: red, green, or dark."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from skystill.classes import ClassMap

THREE = ClassMap(("red", "green", "dark"), ((255, 0, 0), (0, 255, 0), (0, 0, 0)))
TWO = ClassMap(("ground", "building"), ((0, 0, 0), (255, 0, 0)))
FREE = ("n", 3, "h", "w")


def write_foreign(
    path: Path,
    shape: tuple[Any, ...] = FREE,
    *,
    scale: float = 1.0,
    end: str = "",
    dtypes: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    multiple: int = 1,
    reduction: int = 1,
    channels: int = 3,
    answers_last: bool | None = None,
    metadata: dict[str, str] | None = None,
    extra: tuple[Any, ...] = (),
    bands: int = 3,
) -> Path:
    """Write a model file whose logits are red, green and 100 (or only red less 100), each divided by 25.

    Args:
        path: the file.
        shape: shape of the input, with 3 or "c" in the place of the bands.
        scale: what the pixels are divided by before they are given to the file, as 255 for 0..1.
        end: "Softmax", "Sigmoid", "ArgMax", or nothing for logits.
        dtypes: types of input and output.
        multiple: sides that are not divisible by this make the file fail.
        reduction: sides of the input divided by those of the output.
        channels: 3, or 1 for red less 100.
        answers_last: whether the output is (N, h, w, C); None takes the layout of the input.
        metadata: metadata properties.
        extra: nodes that turn "values" into "ended", instead of `end`.
        bands: number of bands, of which the first is red and the second green.
    """
    last = shape[-1] in (bands, "c")
    weights = np.eye(channels, bands, dtype=np.float32)[:, :, None, None]
    weights[2:] = 0
    bias = np.float32([0, 0, 100] if channels == 3 else [-100])
    constants = {"weights": weights * scale / 25, "bias": bias / 25}
    nodes = [helper.make_node("Cast", ["picture"], ["float"], to=TensorProto.FLOAT)]
    at = "float"

    def then(kind: str, *more: str, **attributes: object) -> None:
        nonlocal at
        nodes.append(helper.make_node(kind, [at, *more], [f"{kind}{len(nodes)}"], **attributes))
        at = nodes[-1].output[0]

    if last:
        then("Transpose", perm=[0, 3, 1, 2])
    if multiple > 1:
        then("SpaceToDepth", blocksize=multiple)
        then("DepthToSpace", blocksize=multiple)
    then("Conv", "weights", "bias")
    if reduction > 1:
        then("AveragePool", kernel_shape=[reduction] * 2, strides=[reduction] * 2)
    if extra:
        nodes.extend([helper.make_node("Identity", [at], ["values"]), *extra])
        at = "ended"
    elif end == "Sigmoid":
        then("Sigmoid")
    elif end:
        then(end, axis=1)
    if last if answers_last is None else answers_last:
        then("Transpose", perm=[0, 2, 3, 1])
    then("Cast", to=dtypes[1])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("picture", dtypes[0], list(shape))],
        [helper.make_tensor_value_info(at, dtypes[1], [None] * 4)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def truth(planes: np.ndarray) -> np.ndarray:
    """Return the labels of THREE for planes (3, H, W): the larger of red, green and 100, by numpy alone."""
    height, width = planes.shape[1:]
    return np.asarray(np.stack([planes[0], planes[1], np.full((height, width), 100)]).argmax(axis=0), np.uint8)
