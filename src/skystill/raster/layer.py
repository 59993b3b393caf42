"""One raster of a prediction."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """One raster to write.

    Args:
        name: key of the layer in `Arrays`.
        path: the file to write, .tif, .tiff or .png.
        bands: names of the bands.
        is_classes: True for labels with a colour table, False for probabilities.
        cog: whether to write a Cloud Optimized GeoTIFF.
    """

    name: str
    path: Path
    bands: tuple[str, ...]
    is_classes: bool = False
    cog: bool = False
