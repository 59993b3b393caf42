"""Run a model file as the QGIS plugin Deepness does, and print its metadata. It needs onnxruntime and numpy only.

python run_model.py MODEL INPUT.npy OUTPUT.npy LEVEL

LEVEL is a level of graph optimisation: ORT_ENABLE_ALL, which Deepness uses, or ORT_DISABLE_ALL.
"""

import json
import sys

import numpy as np
import onnxruntime


def main(model: str, given: str, result: str, level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    np.save(result, session.run(None, {taken.name: np.load(given)})[0])
    metadata = session.get_modelmeta().custom_metadata_map
    said = {
        "runtime": onnxruntime.__version__,
        "input": taken.shape,
        "metadata": {key: json.loads(value) for key, value in metadata.items()},
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
