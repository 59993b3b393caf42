"""The ground resolution of training images, read from GeoTIFFs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.raster.input_spec import InputSpec

_GEOTIFF = frozenset({".tif", ".tiff"})
_AGREE = 1.1
"""Images whose resolutions differ by more than this factor have no common resolution."""
_NOMINAL = 0.002  # the scale of UTM is 0.9996 at its central meridian, and 1.001 at its edge
_AXIS, _FLATTENING = 6_378_137.0, 1 / 298.257223563  # WGS 84


def with_resolution(spec: InputSpec, images: Sequence[Path]) -> tuple[InputSpec, list[str]]:
    """Return a spec with the ground resolution that all training images share, and with the range of theirs.

    Args:
        spec: the spec. It is not changed if no image has a resolution.
        images: the training images.

    Returns:
        The spec and notes. Its resolution is the median in metres per pixel. It is None, and a note says why, if an
        image carries no resolution, or if the largest one is more than 1.1 times the smallest.
    """
    found = [resolution for path in images if (resolution := ground_resolution(path)) is not None]
    if not found:
        return spec, []
    spec = replace(spec, resolution_range_m=(_rounded(min(found)), _rounded(max(found))))
    remedy = "The model file stores no resolution; give it with skystill export --resolution METRES."
    if len(found) < len(images):
        note = f"{len(found)} of {len(images)} training images carry a ground resolution, the others none. {remedy}"
        return spec, [note]
    if max(found) > _AGREE * min(found):
        return spec, [f"the training images have {min(found):.4g} to {max(found):.4g} m per pixel. {remedy}"]
    return replace(spec, resolution_m=_rounded(statistics.median(found))), []


def _rounded(metres: float) -> float:
    """Round to six digits: further ones are those of the arithmetic."""
    return float(f"{metres:.6g}")


def ground_resolution(path: Path) -> float | None:
    """Return the ground resolution at the centre of a GeoTIFF.

    It is measured on the ellipsoid. A pixel of "1 m" in web Mercator has 0.5 m at 60 degrees north, and a pixel in
    degrees or feet has metres, too. Where the pixel's size in the units of the CRS agrees to within 0.2 %, as in UTM,
    that size is returned: it is the one that the image is known by. Takes about 1 ms.

    Args:
        path: an image. Files of other formats have no resolution.

    Returns:
        The side in metres of a square with the area of a pixel. None if the file has no CRS and transform.
    """
    if path.suffix.lower() not in _GEOTIFF:
        return None
    # rasterio takes 0.4 s, so it is imported only for TIFFs
    from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform

    from skystill.raster.opening import open_raster
    from skystill.raster.source import gdal_environment

    try:
        with gdal_environment(), open_raster(path) as source:
            crs, own = source.crs, source.transform
            if crs is None or own.is_identity or not (crs.is_projected or crs.is_geographic):
                return None
            nominal = math.sqrt(abs(own.determinant)) * float(crs.linear_units_factor[1]) if crs.is_projected else 0.0
            height, width = source.height, source.width
            # The middles of the left, right, top and bottom edges: over a few metres, rounding would count.
            edges = [(0, height / 2), (width, height / 2), (width / 2, 0), (width / 2, height)]
            xs = [own.a * column + own.b * row + own.c for column, row in edges]
            ys = [own.d * column + own.e * row + own.f for column, row in edges]
            longitudes, latitudes = transform(crs, "EPSG:4326", xs, ys)
    except (
        CRSError,
        RasterioError,
        CPLE_BaseError,
    ):  # a CRS without a place on Earth; a damaged file was refused before
        return None
    left, right, top, bottom = _places(np.radians(longitudes), np.radians(latitudes))
    area = float(np.linalg.norm(np.cross((right - left) / width, (bottom - top) / height)))
    if not (math.isfinite(area) and area > 0):
        return None
    resolution = math.sqrt(area)
    return nominal if abs(nominal / resolution - 1) <= _NOMINAL else resolution


def _places(longitudes: npt.NDArray[np.float64], latitudes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return points on the ellipsoid (N, 3) in metres from the centre of the Earth; angles in radians.

    There, poles and the antimeridian are places like all others.
    """
    squared = _FLATTENING * (2 - _FLATTENING)  # of the first eccentricity
    radius = _AXIS / np.sqrt(1 - squared * np.sin(latitudes) ** 2)  # of curvature in the prime vertical
    across = radius * np.cos(latitudes)
    upwards = radius * (1 - squared) * np.sin(latitudes)
    return np.stack([across * np.cos(longitudes), across * np.sin(longitudes), upwards], axis=1)
