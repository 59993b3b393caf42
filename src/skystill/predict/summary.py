"""Summaries of a class raster: the area of each class, and the classes painted over the image."""

from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import Resampling

from skystill.classes import VOID, ClassMap
from skystill.raster.source import RasterSource, gdal_environment
from skystill.raster.turned import turned_size
from skystill.run_folder import write_table, written_whole
from skystill.settings import RasterSettings

_OVERLAY_SIDE = 2048
_OPACITY = 0.45


def write_areas(raster: Path, path: Path, classes: ClassMap) -> None:
    """Write the area of each class as CSV.

    The columns are the number of pixels, the fraction of all pixels with a class, and the hectares if the CRS is
    projected, in metres or feet.

    Args:
        raster: the class raster, as `Predictor.predict` writes it.
        path: the CSV file to write.
        classes: names of the labels.

    Raises:
        DiskFull: the file cannot be written.
    """
    counts = np.zeros(256, np.int64)
    with gdal_environment(), rasterio.open(raster) as source:
        for _, window in source.block_windows(1):
            counts += np.bincount(source.read(1, window=window).ravel(), minlength=256)
        projected = source.crs is not None and source.crs.is_projected
        unit = source.crs.linear_units_factor[1] if projected else 0.0
        hectares = abs(source.transform.determinant) * unit**2 / 10_000
    total = max(1, int(counts[: len(classes)].sum()))
    rows = [
        {
            "class": name,
            "pixels": int(counts[label]),
            "share": f"{counts[label] / total:.6f}",
            "hectares": f"{counts[label] * hectares:.4f}" if projected else "",
        }
        for label, name in enumerate(classes.names)
    ]
    rows.append({"class": "no data", "pixels": int(counts[VOID]), "share": "", "hectares": ""})
    write_table(path, rows)


def write_overlay(source: str, raster: Path, path: Path, classes: ClassMap, settings: RasterSettings) -> None:
    """Paint the classes over the image, and write the result as a picture.

    Both are reduced to at most 2048 pixels per side. Pixels without data keep the colours of the image.

    Args:
        source: the image.
        raster: its class raster.
        path: the picture to write.
        classes: colours of the labels.
        settings: the settings with which the image was read.

    Raises:
        DataError: the image can no longer be opened.
        DiskFull: the picture cannot be written.
    """
    with gdal_environment():
        with rasterio.open(raster) as labels_file:
            size = max(labels_file.height, labels_file.width)
            shrink = max(1.0, size / _OVERLAY_SIDE)
            shape = (max(1, round(labels_file.height / shrink)), max(1, round(labels_file.width / shrink)))
            labels = labels_file.read(1, out_shape=shape, resampling=Resampling.nearest)
        stored = RasterSource(source, settings.band_numbers, settings.scale_range, as_stored=True)
        stored.close()
        height, width = turned_size(stored.height, stored.width, stored.orientation)
        factor = max(height / shape[0], width / shape[1])
        image_file = RasterSource(source, settings.band_numbers, settings.scale_range, (factor, factor))
        planes, _ = image_file.read(0, image_file.height, 0, image_file.width)
        image_file.close()
    image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).resize(shape[::-1])
    painted = np.asarray(image, np.float32)
    seen = (labels != VOID)[..., None]
    mixed = np.where(seen, painted * (1 - _OPACITY) + classes.paint(labels) * _OPACITY, painted)
    with written_whole(path) as part:
        Image.fromarray(np.asarray(np.rint(mixed), np.uint8)).save(part)
