"""Rasters of any bands, and specs that fit them. Needs neither onnx nor torch."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from skystill.raster.input_spec import Band, InputSpec

TYPES = {"uint8": (120, 50), "uint16": (3000, 900), "int16": (-200, 700), "float32": (0.3, 0.1)}
"""Mean and standard deviation of the first band, by data type."""


def spec_of(dtype: str, count: int, names: tuple[str, ...] = ()) -> InputSpec:
    """A spec whose bands have different means and standard deviations."""
    mean, std = TYPES[dtype]
    bands = [
        Band(names[i] if names else "", i + 1, mean * (1 + i / 50), std * (1 + i / 30), mean - 6 * std, mean + 9 * std)
        for i in range(count)
    ]
    return InputSpec(tuple(bands), dtype)


def pixels_of(spec: InputSpec, height: int, width: int, seed: int = 3) -> np.ndarray[Any, Any]:
    """Planes (B, H, W) of noise around the means of the bands, inside their range."""
    rng = np.random.default_rng(seed)
    mean, std = (np.array([getattr(band, key) for band in spec.bands])[:, None, None] for key in ("mean", "std"))
    values = mean + std * np.clip(rng.normal(size=(len(spec), height, width)), -2.3, 2.3)
    return np.asarray(values if spec.kind.kind == "f" else np.rint(values), spec.kind)


def write_bands(path: Path, planes: np.ndarray[Any, Any], names: tuple[str, ...] = (), **options: Any) -> Path:
    """Write planes as a GeoTIFF with pixels of 0.5 m, with these descriptions."""
    profile = {
        "driver": "GTiff", "height": planes.shape[1], "width": planes.shape[2], "count": len(planes),
        "dtype": planes.dtype.name, "crs": "EPSG:32640", "transform": from_origin(500_000, 2_800_000, 0.5, 0.5),
        "photometric": "minisblack", "alpha": "no",
    }  # fmt: skip
    with rasterio.open(path, "w", **{**profile, **options}) as file:
        file.write(planes)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path
