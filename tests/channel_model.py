"""A model file whose answer is plain to see: the class of a pixel is its brightest channel."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from skystill.classes import DUBAI
from skystill.model.file import ModelInfo

INFO = ModelInfo(DUBAI, "constant", parameters=0, multiply_adds_per_megapixel=0, tile_size=64, overlap=16)


def write_model(path: Path, metadata: dict[str, str], output: str = "logits") -> Path:
    """Logits are the red, green, blue, red, green, blue values of each pixel."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["float", "float"], [output], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 6, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path
