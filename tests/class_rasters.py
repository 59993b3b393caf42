"""Class rasters as a prediction writes them, made from labels."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine


def write_classes(path: Path, labels: np.ndarray, crs: str | None, transform: Affine) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=labels.shape[0], width=labels.shape[1], count=1, dtype="uint8", nodata=255,
        crs=crs, transform=transform,
    ) as file:  # fmt: skip
        file.write(labels, 1)
    return path
