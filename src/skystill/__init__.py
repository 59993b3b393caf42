"""SkyStill distils large aerial-image segmentation models into small ones that run without a GPU."""

import os

# From version 1.32 on, ONNX Runtime writes an identifier into the user's home and sends events over the network, unless
# this is set before it is imported. A value that the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = ["__version__", "predict_dataarray"]


def __getattr__(name: str) -> object:
    if name != "predict_dataarray":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # rasterio and ONNX Runtime start here

    return import_module("skystill.predict.dataarray").predict_dataarray
