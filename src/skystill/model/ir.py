"""The version of ONNX's file format (IR version) that every model file is written in."""

import onnx

from skystill.digests import ONNX_TRAILER

IR_VERSION = 8
"""Of ONNX 1.13, whose newest operator set is 18. The QGIS plugin Deepness pins onnxruntime<=1.17.0, which reads IR
versions up to 9."""


def lower_ir(model: onnx.ModelProto) -> None:
    """Give a model IR version 8, and remove what only newer versions contain, in place. No value changes.

    The quantiser of ONNX Runtime and the exporter of torch write IR version 10. The quantiser also lists operator sets
    that the graph does not use, some of them newer than an older ONNX Runtime knows, which then refuses the file.

    Args:
        model: a model whose operators all exist in IR version 8.

    Raises:
        onnx.checker.ValidationError: the model is not valid in IR version 8.
    """
    used = {node.domain for node in model.graph.node}
    sets = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(sets)
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        # Of IR version 10: notes of the exporter with stack traces, a quarter of a small file.
        del part.metadata_props[:]
    needed = onnx.helper.find_min_ir_version_for(sets)
    if needed > IR_VERSION:
        named = ", ".join(f"{one.domain or 'ai.onnx'} {one.version}" for one in sets)
        raise onnx.checker.ValidationError(f"operator set {named} needs IR version {needed}, not {IR_VERSION}.")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)


def model_bytes(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model file: the model, and behind it the digest as one more property of its metadata."""
    content: bytes = model.SerializeToString()
    return content + ONNX_TRAILER.of(content)
