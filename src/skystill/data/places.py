"""Where images and masks lie on the ground, as far as their files say it, and which show the same ground."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_COMMON = 0.01  # of the smaller image: less is a rounded edge


@dataclass(frozen=True)
class Place:
    """The place of a raster.

    Args:
        crs: its CRS as rasterio gives it; None if the file has a transform alone.
        transform: from columns and rows to coordinates.
        height, width: its size in pixels.
    """

    crs: Any
    transform: Any
    height: int
    width: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x and largest y."""
        x, y = _moved(self.transform, _corners(self.height, self.width)).T
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def find_place(path: Path) -> Place | None:
    """Return the place of an image or a mask, or None if its file has none or cannot be opened as a raster."""
    from rasterio.errors import RasterioError

    from skystill.raster.opening import open_raster
    from skystill.raster.source import gdal_environment

    try:
        with gdal_environment(), open_raster(path) as file:
            own = file.transform
            return None if own.is_identity or not own.determinant else Place(file.crs, own, file.height, file.width)
    except (RasterioError, UnicodeDecodeError):  # reading the file says why
        return None


def pixels_apart(image: Place, mask: Path) -> float:
    """Return how far the corners of a mask are from those of its image, in pixels of the coarser one; 0 if not known.

    Args:
        image: the place of the image.
        mask: the mask. Masks of another size than their image may have the same corners.
    """
    from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    own = find_place(mask)
    if own is None:
        return 0.0
    corners = _moved(own.transform, _corners(own.height, own.width))
    try:
        if image.crs and own.crs and image.crs != own.crs:
            corners = np.array(transform(own.crs, image.crs, *corners.T)).T
    except (RasterioError, CPLE_BaseError):  # a CRS without a place on Earth
        return 0.0
    off = _moved(~image.transform, corners) - _corners(image.height, image.width)
    pixel = max(1.0, image.width / own.width, image.height / own.height)
    apart = float(np.linalg.norm(off, axis=1).max() / pixel)
    return apart if np.isfinite(apart) else 0.0


def sharing_ground(places: Sequence[Place | None], others: Sequence[Place | None]) -> list[int | None]:
    """Return for each of some images which of others shows a part of its ground, or None. Only equal CRSs are compared.

    Args:
        places: those of the images; None for images without one.
        others: those of the others.
    """
    boxes: dict[str, tuple[list[int], npt.NDArray[np.float64]]] = {}
    for name in {_name(place) for place in others if place is not None}:
        numbers = [number for number, place in enumerate(others) if place is not None and _name(place) == name]
        boxes[name] = numbers, np.array([place.box for number in numbers if (place := others[number])])
    found: list[int | None] = []
    for place in places:
        numbers, near = boxes.get(_name(place), ([], np.empty((0, 4)))) if place else ([], np.empty((0, 4)))
        box = np.array(place.box if place else (0, 0, 1, 1))
        sides = np.minimum(near[:, 2:], box[2:]) - np.maximum(near[:, :2], box[:2])
        smaller = np.minimum((box[2:] - box[:2]).prod(), (near[:, 2:] - near[:, :2]).prod(axis=1))
        common = np.clip(sides, 0, None).prod(axis=1) / smaller
        found.append(numbers[int(common.argmax())] if len(common) and common.max() > _COMMON else None)
    return found


def _name(place: Place) -> str:
    return str(place.crs)


def _corners(height: int, width: int) -> npt.NDArray[np.float64]:
    return np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)


def _moved(to: Any, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # noqa: ANN401 - an Affine
    x, y = points[:, 0], points[:, 1]
    return np.stack([to.a * x + to.b * y + to.c, to.d * x + to.e * y + to.f], axis=1)
