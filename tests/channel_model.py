"""A model file whose answer is plain to see: the class of a pixel is its brightest channel."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from skystill.classes import DUBAI
from skystill.model.file import ModelInfo

INFO = ModelInfo(DUBAI, "constant", parameters=0, multiply_adds_per_megapixel=0, tile_size=64, overlap=16)


def write_model(
    path: Path,
    metadata: dict[str, str],
    output: str = "logits",
    added: tuple[int, float] | None = None,
    pooled: int = 1,
) -> Path:
    """Logits are the red, green, blue, red, green, blue values of each pixel.

    For wrong files: `added` is a label and a value that is added to its logits, and `pooled` makes them smaller.
    """
    addends = np.zeros((1, 6, 1, 1), np.float32)
    if added:
        addends[0, added[0]] = added[1]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["float", "float"], ["six"], axis=1),
        helper.make_node("Add", ["six", "addends"], [output if pooled == 1 else "large"]),
    ]
    if pooled > 1:
        sides = [pooled, pooled]
        nodes.append(helper.make_node("MaxPool", ["large"], [output], kernel_shape=sides, strides=sides))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 6, None, None])],
        [numpy_helper.from_array(addends, "addends")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path
