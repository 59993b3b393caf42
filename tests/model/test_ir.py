"""Model files are written in IR version 8, so that older programs read them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from skystill.model.bundled import bundled_model
from skystill.model.ir import IR_VERSION, lower_ir


def model_of(nodes: list[onnx.NodeProto], *sets: tuple[str, int], ir: int = 10) -> onnx.ModelProto:
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 2, 2])
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 2, 2])
    half = helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5])
    graph = helper.make_graph(nodes, "graph", [taken], [given], [half])
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid(*one) for one in sets])


def halved() -> onnx.NodeProto:
    return helper.make_node("Mul", ["image", "half"], ["logits"], name="halved")


def test_notes_and_unused_operator_sets_go_and_the_rest_stays() -> None:
    model = model_of([halved()], ("", 18), ("ai.onnx.ml", 5), ("com.microsoft", 1))
    helper.set_model_props(model, {"classes": "[]"})
    for part in (model.graph, model.graph.node[0], model.graph.input[0], model.graph.initializer[0]):
        part.metadata_props.add(key="pkg.torch", value="a stack trace")
    lower_ir(model)
    assert model.ir_version == IR_VERSION == 8
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert [(one.key, one.value) for one in model.metadata_props] == [("classes", "[]")]
    assert b"stack trace" not in model.SerializeToString()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    assert np.array_equal(session.run(None, {"image": image})[0], image / 2)


@pytest.mark.parametrize(
    ("nodes", "sets", "named"),
    [
        ([halved()], [("", 19)], r"operator set ai\.onnx 19 needs IR version 9, not 8"),
        ([halved()], [("", 21)], r"operator set ai\.onnx 21 needs IR version 10, not 8"),
        ([halved()], [("com.microsoft", 1)], "must specify opset_import for ONNX"),
        ([helper.make_node("NoSuch", ["image"], ["logits"])], [("", 18)], "No Op registered for NoSuch"),
    ],
)
def test_what_does_not_fit_is_refused(nodes: list[onnx.NodeProto], sets: list[tuple[str, int]], named: str) -> None:
    model = model_of(nodes, *sets)
    with pytest.raises(onnx.checker.ValidationError, match=named):
        lower_ir(model)


def test_the_bundled_model_is_in_ir_version_8() -> None:
    model = onnx.load(bundled_model())
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (8, [("", 18)])
    onnx.checker.check_model(bundled_model(), full_check=True)
