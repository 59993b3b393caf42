"""Summaries of a class raster: the area of each class, and the classes painted over the image."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window

from skystill.classes import VOID, ClassMap, Labels
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.band_names import wanted_bands
from skystill.raster.ground import Ground, find_ground
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.saving import save_picture
from skystill.raster.shown import open_shown
from skystill.raster.source import gdal_environment
from skystill.raster.turned import turned_size
from skystill.run_folder import write_table
from skystill.settings import RasterSettings

_OVERLAY_SIDE = 2048
_OPACITY = 0.45
_WINDOW_PIXELS = 2**18
_STRIP_ROWS = 64


def write_areas(raster: Path, path: Path, classes: ClassMap, on_progress: OnProgress = ignore_progress) -> None:
    """Write the area of each class as CSV.

    The columns are the number of pixels, the fraction of all pixels with a class, and the hectares on the ground,
    computed on the ellipsoid of the CRS. Without a CRS there are no hectares.

    Args:
        raster: the class raster, as `Predictor.predict` writes it.
        path: the CSV file to write.
        classes: names of the labels.
        on_progress: called with a `Progress` after each window.

    Raises:
        DiskFull: the file cannot be written.
    """
    counts, square_metres = np.zeros(256, np.int64), np.zeros(256)
    with gdal_environment(), open_raster(raster) as source:
        ground = find_ground(source.crs, source.transform, source.height, source.width)
        for window in tracked(list(_windows(source)), f"areas of {raster.name}", on_progress):
            labels = source.read(1, window=window)
            found = np.bincount(labels.ravel(), minlength=256)
            counts += found
            if ground is not None:
                square_metres += _label_areas_m2(labels, found, window, ground)
    total = max(1, int(counts[: len(classes)].sum()))
    rows = [
        {
            "class": name,
            "pixels": int(counts[label]),
            "share": f"{counts[label] / total:.6f}",
            "hectares": "" if ground is None else f"{square_metres[label] / 10_000:.4f}",
        }
        for label, name in enumerate(classes.names)
    ]
    rows.append({"class": "no data", "pixels": int(counts[VOID]), "share": "", "hectares": ""})
    write_table(path, rows)


def _windows(source: rasterio.DatasetReader) -> Iterator[Window]:
    """Yield the blocks of a raster. Strips, as in a PNG, are read many rows at a time."""
    rows, columns = source.block_shapes[0]
    rows = max(rows, _WINDOW_PIXELS // columns)
    for top in range(0, source.height, rows):
        for left in range(0, source.width, columns):
            yield Window(left, top, min(columns, source.width - left), min(rows, source.height - top))


def _label_areas_m2(
    labels: Labels, counts: npt.NDArray[np.int64], window: Window, ground: Ground
) -> npt.NDArray[np.float64]:
    """Return the area (256,) in square metres of each label of a window, whose pixels are counted in `counts`."""
    top, left = int(window.row_off), int(window.col_off)
    areas = np.zeros(256)
    for rows, columns, pixel_m2 in ground.window_areas_m2(top, top + labels.shape[0], left, left + labels.shape[1]):
        part = labels[rows, columns]
        if isinstance(pixel_m2, float):
            areas += (counts if part.size == labels.size else np.bincount(part.ravel(), minlength=256)) * pixel_m2
        else:
            areas += np.bincount(part.ravel(), weights=pixel_m2.ravel(), minlength=256)
    return areas


def write_overlay(
    source: str,
    raster: Path,
    path: Path,
    classes: ClassMap,
    settings: RasterSettings,
    spec: InputSpec = RGB,
    show: str | None = None,
) -> None:
    """Paint the classes over the image, and write the result as a picture.

    Both are reduced to at most 2048 pixels per side. Pixels without data keep the colours of the image.

    Args:
        source: the image.
        raster: its class raster.
        path: the picture to write.
        classes: colours of the labels.
        settings: the settings with which the image was read.
        spec: what the network was fed. If these are not colours, the image is shown by the bands that it names red,
            green and blue, or else by its first ones.
        show: the bands that are shown instead, as `--show` names them.

    Raises:
        DataError: the image can no longer be opened.
        SettingsError: it has no such bands.
        DiskFull: the picture cannot be written.
    """
    bands = wanted_bands(show, "--show") or (wanted_bands(settings.bands) if spec.is_colors else None)
    scale = settings.scale_range if spec.is_colors else None
    with gdal_environment():
        with open_raster(raster) as labels_file:
            size = max(labels_file.height, labels_file.width)
            shrink = max(1.0, size / _OVERLAY_SIDE)
            shape = (max(1, round(labels_file.height / shrink)), max(1, round(labels_file.width / shrink)))
            labels = labels_file.read(1, out_shape=shape, resampling=Resampling.nearest)
        stored = open_shown(source, bands, scale, as_stored=True)
        stored.close()
        height, width = turned_size(stored.height, stored.width, stored.orientation)
        factor = max(height / shape[0], width / shape[1])
        image_file = open_shown(source, bands, scale, (factor, factor))
        planes, _ = image_file.read(0, image_file.height, 0, image_file.width)
        image_file.close()
    image = np.array(Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).resize(shape[::-1]))
    del planes
    for top in range(0, len(image), _STRIP_ROWS):  # as a whole, the floats would take 100 bytes per pixel
        part = np.s_[top : top + _STRIP_ROWS]
        painted, strip = image[part].astype(np.float32), labels[part]
        seen = (strip != VOID)[..., None]
        mixed = np.where(seen, painted * (1 - _OPACITY) + classes.paint(strip) * _OPACITY, painted)
        image[part] = np.rint(mixed)
    save_picture(Image.fromarray(image), path)
