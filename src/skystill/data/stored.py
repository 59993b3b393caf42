"""What files of images say of their values that a network does not see: scale, and transparency that is none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from skystill.raster.band_names import alpha_of
from skystill.raster.input_spec import InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment

_LOOKED = 8  # images whose transparency is read: the others of a data set are mostly of one kind
_SIDE = 256  # pixels in the middle of an image that are looked at
_MOST_SOFT = 0.5  # of the values of a band of transparency; edges of a picture are soft, and its inside is not


def stored_notes(images: Sequence[Path], spec: InputSpec) -> list[str]:
    """Return notes on images whose values have different scales, and on transparency that looks like a measurement.

    Args:
        images: the files. Those that cannot be opened are passed over.
        spec: what the network is fed.
    """
    scales: dict[tuple[tuple[float, ...], tuple[float, ...]], Path] = {}
    measured: list[tuple[Path, int]] = []
    looked = 0
    for path in images:
        try:
            with gdal_environment(), open_raster(path) as file:
                scales.setdefault((tuple(file.scales), tuple(file.offsets)), path)
                number = alpha_of(file)
                if number is None or looked == _LOOKED:
                    continue
                looked += 1
                measured += [(path, number)] if _is_measured(file, number) else []
        except (RasterioError, OSError, UnicodeDecodeError):
            continue  # the check of the data reports it
    notes = []
    if measured:
        path, number = measured[0]
        others = f" ({len(measured)} of the {looked} images that were looked at)" if looked > 1 else ""
        notes.append(
            f"{path}{others}: band {number} is transparency by its tag, which GDAL also gives to a fourth band that "
            "nobody named, and most of its values are neither 0 nor the largest, as those of infrared. It is not fed "
            "to the network, and pixels are void where it is 0. If it is infrared: "
            f"gdal_edit.py -colorinterp_{number} undefined FILE."
        )
    if len(scales) > 1 and not spec.is_colors:
        (one, first), (other, second) = list(scales.items())[:2]
        notes.append(
            f"the images have {len(scales)} scales by their tags: {first} scale {one[0][0]:g} and offset "
            f"{one[1][0]:g}, {second} scale {other[0][0]:g} and offset {other[1][0]:g}. The network is fed the "
            "values as they are stored, so that these do not mean the same: bring them to one scale "
            "(gdal_translate -unscale)."
        )
    return notes


def _is_measured(file: rasterio.DatasetReader, number: int) -> bool:
    """Return whether most values of a band of transparency, in the middle of an image, are between the ends."""
    kind = np.dtype(file.dtypes[number - 1])
    if kind.kind != "u":
        return False
    top, left = max(0, (file.height - _SIDE) // 2), max(0, (file.width - _SIDE) // 2)
    window = Window(left, top, min(_SIDE, file.width), min(_SIDE, file.height))
    values = file.read(number, window=window)
    return bool(((values > 0) & (values < np.iinfo(kind).max)).mean() > _MOST_SOFT)
