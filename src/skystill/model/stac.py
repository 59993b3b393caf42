"""Describe a model file by a STAC item with the Machine Learning Model extension."""

import datetime
import os
import re
from pathlib import Path
from urllib.parse import quote

import onnxruntime

from skystill.model.file import ModelInfo, open_session, read_info
from skystill.model.measure import ModelCost, measure_models
from skystill.model.trial import try_once
from skystill.raster.input_spec import InputSpec
from skystill.run_folder import write_json

JsonObject = dict[str, object]

_EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)


def write_stac_item(model: Path, path: Path) -> JsonObject:
    """Write a STAC item that describes a model file.

    The peak memory of the model is measured in a process of its own.

    Args:
        model: the model file.
        path: the JSON file to write.

    Returns:
        the item. Its geometry is null, because the model file does not say where the training data lies.

    Raises:
        ModelFileError: the file cannot be opened or measured, or SkyStill did not export it.
        DiskFull: the item cannot be written.
    """
    try_once(model)
    session = open_session(model)
    info = read_info(session, model)
    cost = measure_models([model])[0]
    bands = [{"name": band.label, "data_type": info.input_spec.dtype} for band in info.input_spec.bands]
    properties = {
        "datetime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": f"Semantic segmentation of aerial images by SkyStill {info.version}, {info.precision}.",
        **_model_properties(info, cost),
        # The extension asks for bands here if its input names any, and STAC 1.1 allows them here if an asset has them.
        "bands": bands,
        "mlm:input": [_input(info.input_spec)],
        "mlm:output": [_output(info)],
        **({"gsd": info.resolution_m} if info.resolution_m else {}),
    }
    item: JsonObject = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": properties["mlm:name"],
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {"model": {**_asset(model, path, cost), "bands": bands}},
    }
    write_json(path, item)
    return item


def _model_properties(info: ModelInfo, cost: ModelCost) -> JsonObject:
    return {
        "mlm:name": re.sub(r"[^a-zA-Z0-9_.-]+", "-", f"skystill-{info.network}-{info.precision}").strip("-."),
        "mlm:architecture": info.network.partition("?")[0],
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX",
        "mlm:framework_version": onnxruntime.__version__,
        "mlm:memory_size": cost.peak_rss_bytes,
        "mlm:total_parameters": info.parameters,
        "mlm:pretrained": True,
        "mlm:pretrained_source": info.data or None,
        "mlm:batch_size_suggestion": 1,
        "mlm:accelerator": None,
        "mlm:hyperparameters": {"tile_size": info.tile_size, "overlap": info.overlap, **info.scores},
    }


def _input(spec: InputSpec) -> JsonObject:
    """The input. Three bands of bytes are normalised by constants of the graph, which are no property of the data."""
    described: JsonObject = {
        "name": "image",
        "bands": [band.label for band in spec.bands],
        "input": _structure([-1, len(spec), -1, -1], "channel", spec.dtype),
    }
    if spec.is_three_bytes:
        letters = "RGB" if spec.is_colors else spec.labels
        return {**described, "description": f"{letters}, 0 to 255; the graph normalises."}
    scaling = [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in spec.bands]
    return {
        **described,
        "value_scaling": scaling,
        "description": f"The values of {spec.labels} as they are; the graph normalises them, as value_scaling says.",
    }


def _output(info: ModelInfo) -> JsonObject:
    classes = [
        {"value": label, "name": name, "color_hint": "".join(f"{value:02X}" for value in color)}
        for label, (name, color) in enumerate(zip(info.classes.names, info.classes.colors, strict=True))
    ]
    return {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "result": _structure([-1, len(classes), -1, -1], "class", "float32"),
        "classification:classes": classes,
    }


def _asset(model: Path, item: Path, cost: ModelCost) -> JsonObject:
    """The model file as an asset. Its address is relative to the item, so that both can be moved together."""
    return {
        "href": quote(Path(os.path.relpath(model.resolve(), item.resolve().parent)).as_posix()),
        "type": "application/octet-stream; application=onnx",
        "title": "ONNX model",
        "roles": ["mlm:model", "mlm:weights", "data"],
        "mlm:artifact_type": "onnx",
        "file:size": cost.size_bytes,
    }


def _structure(shape: list[int], second: str, data_type: str) -> JsonObject:
    return {"shape": shape, "dim_order": ["batch", second, "height", "width"], "data_type": data_type}
