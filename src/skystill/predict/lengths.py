"""Lengths and areas of settings, such as 2m and 20m2, in pixels of a raster."""

import math

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from skystill.errors import SettingsError, shortened
from skystill.raster.ground import find_ground
from skystill.settings import split_amount

Grid = tuple[int, int, CRS | None, Affine]
"""Height and width of a raster in pixels, its CRS and its transform."""

_LEAST_TOLERANCE = math.sqrt(0.5)  # in pixels: the triangle at a step of one pixel has half a pixel


def smallest_component(min_area: str, name: str, pixel_m2: float | None, pixels: int) -> int:
    """Return the smallest number of pixels whose area is not below `min_area`.

    Args:
        min_area: an area such as 20m2 or 50px.
        name: the raster, for messages.
        pixel_m2: area of its pixels in square metres; None if it is not known.
        pixels: number of its pixels.

    Raises:
        SettingsError: the area of the pixels is needed and not known, or `min_area` is not more than one pixel, or more
            than the raster.
    """
    value, unit = split_amount(min_area)
    if unit == "m2":
        value /= _known(pixel_m2, name, f"--min-area {min_area}", "50px")
    least = value * (1 - 1e-9)  # 20 m2 in pixels of 0.1 m2 are 200, and not 201
    if not 1 < least <= pixels:
        why = "no component is smaller" if least <= 1 else f"the whole raster has {pixels}"
        raise SettingsError(
            f"--min-area {shortened(min_area, 40)} is {value:.3g} pixels of {name}; {why}. Give another area."
        )
    return math.ceil(least)


def tolerance_in_pixels(simplify: str, name: str, pixel_m2: float | None) -> float:
    """Return the tolerance of `--simplify` in pixels.

    Args:
        simplify: a length such as 1m or 2px.
        name: the raster, for messages.
        pixel_m2: area of its pixels in square metres; None if it is not known.

    Raises:
        SettingsError: the size of the pixels is needed and not known, or the tolerance is too small for any effect or
            no finite number.
    """
    value, unit = split_amount(simplify)
    if unit == "m":
        value /= math.sqrt(_known(pixel_m2, name, f"--simplify {simplify}", "2px"))
    if value < _LEAST_TOLERANCE:
        raise SettingsError(
            f"--simplify {simplify} is {value:.3g} pixels of {name}, which removes nothing: the steps of the pixels go "
            f"above {_LEAST_TOLERANCE:.2f} pixels. Give more, or leave --simplify out."
        )
    if math.isinf(value):
        raise SettingsError(f"--simplify {shortened(simplify, 40)} is more than any raster has. Give less.")
    return value


def _known(pixel_m2: float | None, name: str, setting: str, pixels: str) -> float:
    if pixel_m2 is None:
        raise SettingsError(
            f"{setting}: {name} does not say how large its pixels are on the ground. Give pixels, such as {pixels}."
        )
    return pixel_m2


def pixel_m2_at(source: Grid, column: float, row: float) -> float | None:
    """Return the area on the ground of a pixel at a place in a raster in square metres; None if it is not known.

    Args:
        source: height and width of the raster in pixels, its CRS and its transform.
        column: place in pixels from the left edge of the raster.
        row: place in pixels from its upper edge.
    """
    height, width, crs, transform = source
    ground = find_ground(crs, transform, height, width)
    if ground is None:
        return None
    area = float(ground.pixel_areas_m2(np.array([column]), np.array([row]))[0])
    return area if math.isfinite(area) and area > 0 else None
