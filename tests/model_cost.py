from typing import Any

from skystill.model.measure import ComparedCost


def cost(**values: Any) -> ComparedCost:
    """What a model file costs, with figures of no meaning where a test gives none."""
    some: dict[str, Any] = {
        "size_bytes": 50_000, "network": "kite", "precision": "int8", "parameters": 1000,
        "multiply_adds_per_megapixel": 10**9, "latency_ms_per_mp": 30.0, "latency_spread_ms_per_mp": (29.0, 31.0),
        "threads": 2, "runtime": "onnxruntime", "peak_rss_bytes": 150_000_000, "tile_pixels": 1024**2, "path": "m.onnx",
        "latency_ms_per_mp_1_thread": 60.0, "latency_spread_ms_per_mp_1_thread": (58.0, 62.0), "peak_fraction": 0.2,
    }  # fmt: skip
    return ComparedCost(**some | values)
