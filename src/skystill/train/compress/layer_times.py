"""The fraction of a model file's time that each convolution takes, measured with the profiler of ONNX Runtime."""

import json
import re
import statistics
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from skystill.model.file import read_info
from skystill.model.measure import measured_side
from skystill.raster.scratch import scratch_folder

_RUNS, _WARM_UP = 12, 2
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def layer_fractions(exported: Path, int8: Path) -> dict[str, float]:
    """Return the fraction of a quantised file's time that each convolution takes, on one thread.

    Args:
        exported: the float file. Its weights have the names of the modules from which they come.
        int8: the INT8 file that was made from it.

    Returns:
        A fraction, 0 to 1, by module path. The rest of the time is spent on other operators.
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
    """Return the time of each node by name, in microseconds: the median of several runs after a warm-up."""
    with scratch_folder() as scratch:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "profile")
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        fed = read_info(session, path).input_spec
        side = measured_side()
        image = np.random.default_rng(0).integers(0, 256, (1, len(fed), side, side)).astype(fed.kind)
        for _ in range(_RUNS):
            session.run(None, {session.get_inputs()[0].name: image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    durations: dict[str, list[float]] = {}
    for event in events:
        found = re.fullmatch(r"(.+?)(?:_token_\d+)?_kernel_time", event["name"])
        if event.get("cat") == "Node" and found:
            durations.setdefault(found[1], []).append(event["dur"])
    return {node: statistics.median(times[_WARM_UP:]) for node, times in durations.items()}
