"""Three bands of a raster as a picture to look at, whatever a network is fed."""

from collections.abc import Sequence

import numpy as np
from rasterio.errors import RasterioError

from skystill.errors import DataError, SettingsError
from skystill.raster.band_names import alpha_of
from skystill.raster.colors import Bytes
from skystill.raster.input_spec import InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.picture import Bounds
from skystill.raster.source import RasterSource, gdal_environment


def open_shown(
    path: str,
    show: Sequence[int | str] | None,
    scale: tuple[float, float] | None = None,
    factors: tuple[float, float] = (1.0, 1.0),
    as_stored: bool = False,
) -> RasterSource:
    """Open a raster for a picture: its red, green and blue in bytes, stretched if its values are not bytes.

    A raster that is not a picture is shown by its first three bands, or by its first band in grey.

    Args:
        path: the raster.
        show: numbers or names of the bands that are shown, three or one; None finds them.
        scale: as in `RasterSource`.
        factors: as in `RasterSource`.
        as_stored: as in `RasterSource`.

    Raises:
        DataError: the raster cannot be opened, or holds complex numbers.
        SettingsError: it lacks a band of `show`.
    """
    try:
        return RasterSource(path, show, scale, factors, as_stored)
    except (DataError, SettingsError):
        first = [] if show is not None else _first_bands(path)
        if not first:
            raise
    return RasterSource(path, first, scale, factors, as_stored)


def read_shown(path: str, show: Sequence[int | str] | None = None, bounds: Bounds | None = None) -> Bytes:
    """Return a raster, or a window of it, as a picture (H, W, 3) uint8 RGB, upright.

    Args:
        path: the raster.
        show: as in `open_shown`.
        bounds: the window; None for all of it.

    Raises:
        DataError, SettingsError: as `open_shown`.
    """
    with gdal_environment():
        source = open_shown(path, show)
        planes, _ = source.read(*(bounds or (0, source.height, 0, source.width)))
        source.close()
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _first_bands(path: str) -> list[int]:
    """Return the numbers of the first three bands without transparency, or of one; none if it cannot be opened."""
    try:
        with open_raster(path) as file:
            alpha = alpha_of(file)
            data = [number for number in range(1, file.count + 1) if number != alpha] or [1]
    except RasterioError:
        return []
    return data[:3] if len(data) >= 3 else data[:1]


def shown_places(spec: InputSpec, show: Sequence[int | str] | None = None) -> list[int]:
    """Return the places of the bands of a spec that are shown: those of `show`, or red, green and blue, or the first.

    Args:
        spec: what the network is fed. It may lack bands that the images have.
        show: names or numbers of bands, or None.
    """
    by_name = {band.name: place for place, band in enumerate(spec.bands) if band.name}
    by_number = {band.number: place for place, band in enumerate(spec.bands)}
    for wanted in (show or (), ("red", "green", "blue")):
        places = [by_name.get(one) if isinstance(one, str) else by_number.get(one) for one in wanted]
        if places and None not in places:
            return [place for place in places if place is not None]
    return [0, 1, 2] if len(spec) >= 3 else [0]
