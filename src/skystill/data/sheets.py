"""The rasters of one map, which is called sheets: where the windows of one lie in the pixels of another.

Sheets may have different CRSs, and may show the same ground. What a window shows is its outline on the ground.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.data.map_labels import MapLabels, open_map
from skystill.errors import DataError
from skystill.raster.picture import Bounds

_APART = 2.0  # factor by which resolutions may differ
_POINTS = 32  # on each side of a window: a straight line in one CRS is a curve in another one
_ROUNDING = 1e-3  # pixels by which places may be off after they were brought to another CRS and back
Floats = npt.NDArray[np.float64]
Windows = Mapping[Path, Sequence[Bounds]]
"""Windows of each raster."""


class Sheets:
    """The rasters of a map. Of a map of one raster nothing is opened.

    Args:
        labels: the rasters, each with its vector file.
    """

    def __init__(self, labels: Mapping[Path, Path]) -> None:
        self.images, self._labels = sorted(labels), labels
        self._known_near: dict[tuple[Path, tuple[int, int]], list[Path]] = {}

    @functools.cached_property
    def opened(self) -> dict[Path, MapLabels]:
        """Each raster with its features, sorted by its path."""
        return {image: open_map(image, self._labels[image]) for image in self.images}

    @property
    def finest_m(self) -> tuple[float, float]:
        """Smallest height and width in metres of a pixel."""
        down, across = zip(*(one.pixel_m for one in self.opened.values()), strict=True)
        return min(down), min(across)

    @property
    def spread(self) -> float:
        """The coarsest resolution as a multiple of the finest one; 1 for one raster."""
        if len(self.images) == 1:
            return 1.0
        return max(self._resolutions.values()) / min(self._resolutions.values())

    @functools.cached_property
    def _resolutions(self) -> dict[Path, float]:
        return {image: math.sqrt(math.prod(one.pixel_m)) for image, one in self.opened.items()}

    def problems(self) -> list[str]:
        """Return a line if the resolutions of the rasters differ by more than a factor of 2."""
        if len(self.images) == 1 or self.spread <= _APART:
            return []
        fine, coarse = (choose(self._resolutions, key=self._resolutions.__getitem__) for choose in (min, max))
        return [
            f"{fine.name} has {self._resolutions[fine]:.4g} m per pixel, and {coarse.name} "
            f"{self._resolutions[coarse]:.4g} m: the rasters of a map may differ by a factor of {_APART:g}. Bring them "
            f"to one resolution: gdalwarp -tr SIDE SIDE {coarse.name} OUT.tif, or make a map of each."
        ]

    def places_in_first(self, windows: Sequence[tuple[Path, Bounds]]) -> Floats:
        """Return the middle of each window as row and column of the first raster, which may lie outside of it (N, 2).

        Raises:
            DataError: a raster has no place in the CRS of the first one.
        """
        places = np.zeros((len(windows), 2))
        first = self.images[0]
        of_image: dict[Path, list[int]] = defaultdict(list)
        for place, (image, _) in enumerate(windows):
            of_image[image].append(place)
        for image, own in of_image.items():
            top, bottom, left, right = np.array([windows[place][1] for place in own], float).T
            middles = np.stack([(left + right) / 2, (top + bottom) / 2], axis=1)[:, None]
            moved = middles if image == first else self._seen(image, first, middles)
            if not np.isfinite(moved).all():
                raise DataError(
                    f"{image} has no place in the CRS of {first.name}, in which the map is divided into blocks.",
                    mend="Bring the rasters to one CRS with gdalwarp -t_srs, or make a map of each region.",
                )
            places[own] = moved[:, 0, ::-1]
        return places

    def boxes_in_first(self) -> Floats:
        """Return a rectangle around each raster in pixels of the first one: left, top, right, bottom (N, 4).

        It is NaN for a raster without a place in the CRS of the first one.
        """
        first, boxes = self.images[0], []
        for image, one in self.opened.items():
            if image == first:
                boxes.append([0.0, 0.0, one.width, one.height])
                continue
            outline = self._in_pixels(one, first, self._on_ground[image][None])[0]
            finite = bool(np.isfinite(outline).all())
            boxes.append([*outline.min(axis=0), *outline.max(axis=0)] if finite else [np.nan] * 4)
        return np.array(boxes, float)

    def seen_from(self, image: Path, windows: Windows, reach: tuple[int, int]) -> list[Bounds]:
        """Return rectangles in the pixels of a raster that hold all that some windows show, of those that are near it.

        Args:
            image: the raster.
            windows: windows of all rasters.
            reach: rows and columns around the raster in which windows are near.
        """
        found = list(windows.get(image, ()))
        for outlines in self._near_outlines(image, windows, reach):
            low = np.floor(outlines.min(axis=1) + _ROUNDING).astype(int)
            high = np.ceil(outlines.max(axis=1) - _ROUNDING).astype(int)
            found += [(top, bottom, left, right)
                      for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True)]  # fmt: skip
        return found

    def others_over(self, image: Path, windows: Windows) -> npt.NDArray[np.object_]:
        """Return what windows of other rasters show of the ground of a raster: polygons in its pixels."""
        import shapely

        found = [shapely.polygons(outlines) for outlines in self._near_outlines(image, windows, (0, 0))]
        return np.concatenate(found) if found else np.zeros(0, object)

    def overlapping(self) -> list[tuple[Path, Path]]:
        """Return the pairs of rasters that show the same ground."""
        import shapely

        found = []
        for image, one in self.opened.items():
            own = shapely.box(0, 0, one.width, one.height)
            for other in self._near(image, (0, 0)):
                over = shapely.polygons(self._in_pixels(self.opened[other], image, self._on_ground[other][None]))
                if other > image and (shapely.area(shapely.intersection(over, own)) > 1).any():
                    found.append((image, other))
        return sorted(found)

    def _near_outlines(self, image: Path, windows: Windows, reach: tuple[int, int]) -> Iterable[Floats]:
        """Yield the outlines (N, points, 2) in the pixels of a raster of windows of others that are near it."""
        if not windows.keys() - {image}:
            return
        for other in self._near(image, reach):
            outlines = self._seen(other, image, _outlines(np.array(windows.get(other, ()), float).reshape(-1, 4)))
            outlines = outlines[self._touches(image, outlines, reach)]
            if len(outlines):
                yield outlines

    def _near(self, image: Path, reach: tuple[int, int]) -> list[Path]:
        """Return the other rasters that lie near a raster."""
        if (image, reach) not in self._known_near:
            self._known_near[image, reach] = [
                alike[place]
                for alike, ground in self._alike
                for place in np.flatnonzero(
                    self._touches(image, self._in_pixels(self.opened[alike[0]], image, ground), reach)
                )
                if alike[place] != image
            ]
        return self._known_near[image, reach]

    @functools.cached_property
    def _alike(self) -> list[tuple[list[Path], Floats]]:
        """The rasters of each CRS, with their outlines in it (N, points, 2)."""
        by_crs: dict[Any, list[Path]] = defaultdict(list)
        for image, one in self.opened.items():
            by_crs[one.ground.shifted].append(image)
        return [(images, np.stack([self._on_ground[image] for image in images])) for images in by_crs.values()]

    def _touches(self, image: Path, outlines: Floats, reach: tuple[int, int]) -> npt.NDArray[np.bool_]:
        one = self.opened[image]
        low, high = outlines.min(axis=1), outlines.max(axis=1)
        size, around = np.array([one.width, one.height]), np.array([reach[1], reach[0]])
        with np.errstate(invalid="ignore"):  # those without a place there
            inside = (low < size + around) & (high > -around) & np.isfinite(high) & np.isfinite(low)
        return np.asarray(inside.all(axis=1))

    @functools.cached_property
    def _on_ground(self) -> Mapping[Path, Floats]:
        """The outline of each raster in its own CRS."""
        return {
            image: _moved(one.transform, _outlines(np.array([[0, one.height, 0, one.width]], float)))[0]
            for image, one in self.opened.items()
        }

    def _seen(self, image: Path, other: Path, points: Floats) -> Floats:
        """Return outlines (N, points, 2) of columns and rows of a raster in columns and rows of another one."""
        one = self.opened[image]
        return self._in_pixels(one, other, _moved(one.transform, points))

    def _in_pixels(self, one: MapLabels, other: Path, ground: Floats) -> Floats:
        """Return outlines (N, points, 2) in the CRS of a raster in columns and rows of another one."""
        to = self.opened[other]
        transformer = _between(one.ground.shifted, to.ground.shifted)
        if transformer is not None:
            x, y = transformer.transform(ground[..., 0], ground[..., 1])
            ground = np.stack([x, y], axis=-1)
        turn = to.ground.turn
        if turn is not None:  # longitudes may go on beyond 180 degrees
            x, middle = ground[..., 0], _moved(to.transform, np.array([to.width / 2, to.height / 2]))[0]
            with np.errstate(invalid="ignore"):
                x = x - turn * np.round((x - x[:, :1]) / turn)
                x = x - turn * np.round((x.mean(axis=1, keepdims=True) - middle) / turn)
            ground = np.stack([x, ground[..., 1]], axis=-1)
        return _moved(~to.transform, ground)


def _outlines(windows: Floats) -> Floats:
    """Return the outlines (N, points, 2) of windows (N, 4): columns and rows of points on their sides."""
    top, bottom, left, right = windows.T[..., None]
    steps = np.arange(_POINTS) / _POINTS
    down, across, one = top + steps * (bottom - top), left + steps * (right - left), np.ones(_POINTS)
    columns = np.concatenate([across, right * one, right - (across - left), left * one], axis=1)
    rows = np.concatenate([top * one, down, bottom * one, bottom - (down - top)], axis=1)
    return np.stack([columns, rows], axis=-1)


def _moved(to: Any, points: Floats) -> Floats:  # noqa: ANN401 - an Affine
    x, y = points[..., 0], points[..., 1]
    with np.errstate(invalid="ignore"):
        return np.stack([to.a * x + to.b * y + to.c, to.d * x + to.e * y + to.f], axis=-1)


@functools.lru_cache(maxsize=64)
def _between(one: Any, other: Any) -> Any:  # noqa: ANN401 - from pyproj, which is imported where it is used
    """Return pyproj's transformer between two CRSs, or None if they are the same."""
    import pyproj

    try:
        return None if one == other else pyproj.Transformer.from_crs(one, other, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise DataError(
            f"the rasters of the map have CRSs of which one cannot be brought to the other: {error}.",
            mend="Bring the rasters to one CRS with gdalwarp -t_srs, or make a map of each.",
        ) from error
