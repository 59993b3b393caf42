"""A STAC item that describes a model file with the Machine Learning Model extension."""

import datetime
import os
import re
from pathlib import Path
from typing import Any

import onnxruntime

from skystill.model.file import open_session, read_info
from skystill.model.measure import measure_models
from skystill.run_folder import write_json

_EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)


def write_stac_item(model: Path, path: Path) -> dict[str, Any]:
    """Describe a model file; its memory is measured in a process of its own.

    Args:
        model: the ONNX file.
        path: the item, JSON.

    Returns:
        the item. Where the training data lies is not known to the file, so its geometry is null.

    Raises:
        ModelFileError: not a model file of ours.
        DiskFull: the item cannot be written.
    """
    session = open_session(model)
    info = read_info(session, model)
    cost = measure_models([model])[0]
    classes = [
        {"value": label, "name": name, "color_hint": "".join(f"{value:02X}" for value in color)}
        for label, (name, color) in enumerate(zip(info.classes.names, info.classes.colors, strict=True))
    ]
    properties: dict[str, Any] = {
        "datetime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": f"Semantic segmentation of aerial images by SkyStill {info.version}, {info.precision}.",
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
        "mlm:input": [
            {
                "name": "image",
                "bands": ["red", "green", "blue"],
                "input": _structure([-1, 3, -1, -1], "channel", "uint8"),
                "description": "RGB, 0 to 255; the graph normalises.",
            }
        ],
        "mlm:output": [
            {
                "name": "logits",
                "tasks": ["semantic-segmentation"],
                "result": _structure([-1, len(classes), -1, -1], "class", "float32"),
                "classification:classes": classes,
            }
        ],
    }
    if info.resolution_m:
        properties["gsd"] = info.resolution_m
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": properties["mlm:name"],
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {
            "model": {
                "href": Path(os.path.relpath(model.resolve(), path.resolve().parent)).as_posix(),
                "type": "application/octet-stream; application=onnx",
                "title": "ONNX model",
                "roles": ["mlm:model", "mlm:weights", "data"],
                "mlm:artifact_type": "onnx",
                "file:size": cost.size_bytes,
            }
        },
    }
    write_json(path, item)
    return item


def _structure(shape: list[int], second: str, data_type: str) -> dict[str, Any]:
    return {"shape": shape, "dim_order": ["batch", second, "height", "width"], "data_type": data_type}
