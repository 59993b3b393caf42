"""Where a model file's time goes: the fraction that each convolution takes, measured by ONNX Runtime's own profiler."""

import json
import re
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

_RUNS, _WARM_UP = 12, 2
_SIDE = 1024
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def layer_fractions(exported: Path, int8: Path) -> dict[str, float]:
    """Share of the time of a quantised file that each convolution takes, on one thread.

    Args:
        exported: the float file, whose weights are called as the modules they come from.
        int8: the file that was made of it.

    Returns:
        module path to 0..1; the rest is the network's other work.
    """
    modules = [node.input[1].removesuffix(".weight") for node in _convolutions(exported)]
    nodes = [node.name for node in _convolutions(int8)]
    assert len(modules) == len(nodes), "quantising changes no convolution"
    times = _profile(int8)
    total = sum(times.values())
    return {module: times.get(node, 0.0) / total for module, node in zip(modules, nodes, strict=True)}


def _convolutions(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type in _CONVOLUTIONS]


def _profile(path: Path) -> dict[str, float]:
    """Microseconds of each node: the median of several runs."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        image = np.random.default_rng(0).integers(0, 256, (1, 3, _SIDE, _SIDE), np.uint8)
        for _ in range(_RUNS):
            session.run(None, {session.get_inputs()[0].name: image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    durations: dict[str, list[float]] = {}
    for event in events:
        found = re.fullmatch(r"(.+?)(?:_token_\d+)?_kernel_time", event["name"])
        if event.get("cat") == "Node" and found:
            durations.setdefault(found[1], []).append(event["dur"])
    return {node: statistics.median(times[_WARM_UP:]) for node, times in durations.items()}
