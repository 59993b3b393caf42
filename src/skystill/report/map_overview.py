"""A small picture of a raster with the features that label it, its area and its split, in bounded memory."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap
from skystill.data import Pair
from skystill.data.map_labels import MapLabels, open_map
from skystill.data.maps import block_of, map_windows
from skystill.errors import DataError
from skystill.progress import OnProgress, tracked
from skystill.raster.colors import Bytes
from skystill.raster.picture import Bounds
from skystill.raster.shown import open_shown
from skystill.raster.source import RasterSource, gdal_environment
from skystill.raster.tiled_copy import wide_blocks
from skystill.report.environment import picture_url

_SIDE = 1024  # pixels of the picture
_MOST = 12  # pictures; each may have some megabytes
_OPACITY = 170  # of features, of 255
_NOTHING = (225, 225, 225)  # where the raster has no data
_OUTSIDE, _STRIPE = (0, 0, 0, 120), (255, 255, 255, 130)
_STRIPE_PIXELS = 5


@dataclass(frozen=True)
class Overview:
    """Pictures that lie over each other. Their URLs hold them.

    Args:
        name: name of the raster.
        height, width: of the raster in pixels.
        covered: height and width in pixels of the raster that the pictures cover, which may be a little more.
        image: the raster.
        labels: the features in the colours of their classes, transparent between them.
        area: what lies outside of the area in which labels are complete; None without one.
        parts: by the name of a part of the split, its blocks as a path of SVG in pixels of the raster.
        problems: why a picture is not complete.
    """

    name: str
    height: int
    width: int
    covered: tuple[int, int]
    image: str
    labels: str
    area: str | None
    parts: Mapping[str, str]
    problems: tuple[str, ...]


def draw_overviews(
    pairs: Sequence[Pair], classes: ClassMap, parts: Mapping[str, Sequence[Pair]], on_progress: OnProgress
) -> list[Overview]:
    """Draw the rasters of a map, or 12 of them, spread evenly, if there are more.

    Args:
        pairs: windows of the map, of each raster at least one.
        classes: the classes with their sources.
        parts: the windows of each part of the split.
        on_progress: called with a `Progress` after each window.
    """
    found = []
    rasters = list(dict.fromkeys((pair.image, pair.mask) for pair in pairs))
    count = min(len(rasters), _MOST)
    for image, labels in [rasters[place * len(rasters) // count] for place in range(count)]:
        here = {part: [pair for pair in own if pair.image == image] for part, own in parts.items()}
        pictures = _Pictures(open_map(image, labels), classes)
        pictures.draw(on_progress)
        found.append(pictures.overview({part: _path(own) for part, own in here.items() if own}))
    return found


class _Pictures:
    """The pictures of one raster, drawn window by window.

    Args:
        whole: the raster and its features.
        classes: the classes with their sources.
    """

    def __init__(self, whole: MapLabels, classes: ClassMap) -> None:
        self.whole, self.classes = whole, classes
        (self.windows,) = map_windows((whole.height, whole.width))
        self.step = _step(whole, self.windows)
        size = -(-whole.height // self.step), -(-whole.width // self.step)
        self.image = np.full((*size, 3), _NOTHING, np.uint8)
        self.features = np.zeros((*size, 4), np.uint8)
        self.outside = np.zeros(size, bool)
        self.problems: dict[str, None] = {}

    def draw(self, on_progress: OnProgress) -> None:
        """Draw all windows. What cannot be read becomes a problem."""
        image = self.whole.image
        by_rows = wide_blocks(image) is not None
        with gdal_environment():
            source = open_shown(str(image), None, factors=(1, 1) if by_rows else (self.step, self.step))
            for row in range(len(self.image)) if by_rows else ():
                self._draw_row(source, row)
            for bounds in tracked(self.windows, f"drawing {image.name}", on_progress):
                if not by_rows:
                    self._draw_image(source, bounds)
                try:
                    self._draw_features(bounds)
                except DataError as error:
                    self.problems[f"its features are not drawn everywhere: {error}"] = None
            if source.damaged:
                self.problems[f"a part of it cannot be read: {source.reason}."] = None
            source.close()

    def _draw_image(self, source: RasterSource, bounds: Bounds) -> None:
        top, bottom, left, right = (-(-value // self.step) for value in bounds)
        bottom, right = min(bottom, source.height), min(right, source.width)
        if top < bottom and left < right:
            planes, valid = source.read(top, bottom, left, right)
            seen = np.full(planes.shape[1:], True) if valid is None else valid
            self.image[top:bottom, left:right][seen] = planes.transpose(1, 2, 0)[seen]

    def _draw_row(self, source: RasterSource, row: int) -> None:
        """Draw the middles of a row of squares: windows would decode blocks of the whole width again and again."""
        middle = min(row * self.step + self.step // 2, source.height - 1)
        planes, valid = source.read(middle, middle + 1, 0, source.width)
        columns = np.minimum(np.arange(self.image.shape[1]) * self.step + self.step // 2, source.width - 1)
        seen = np.full(len(columns), True) if valid is None else valid[0, columns]
        self.image[row][seen] = planes[:, 0, columns].T[seen]

    def _draw_features(self, bounds: Bounds) -> None:
        labels = self.whole.burn(bounds, self.classes, self.step).labels
        inside = self.whole.inside_area(bounds, self.step)
        top, left = bounds[0] // self.step, bounds[2] // self.step
        here = np.s_[top : top + labels.shape[0], left : left + labels.shape[1]]
        rest = [label for label, sources in enumerate(self.classes.sources) if sources[0].rest]
        drawn = (labels != VOID) & ~np.isin(labels, rest)
        self.features[here][drawn] = np.dstack([self.classes.paint(labels), np.full(labels.shape, _OPACITY)])[drawn]
        if inside is not None:
            self.outside[here] = ~inside

    def overview(self, parts: Mapping[str, str]) -> Overview:
        """Return the pictures.

        Args:
            parts: the blocks of each part, as in `Overview`.
        """
        whole, (rows, columns) = self.whole, self.outside.shape
        return Overview(
            whole.image.name,
            whole.height,
            whole.width,
            (rows * self.step, columns * self.step),
            picture_url(self.image, ".jpg"),
            picture_url(self.features, ".png"),
            None if whole.area is None else picture_url(_hatched(self.outside), ".png"),
            parts,
            tuple(self.problems),
        )


def _step(whole: MapLabels, windows: Sequence[Bounds]) -> int:
    """Return how many pixels become one: a power of two, so that windows begin at borders of what becomes a pixel."""
    starts = {start for bounds in windows for start in (bounds[0], bounds[2])}
    step = 1
    while max(whole.height, whole.width) > _SIDE * step and not any(start % (2 * step) for start in starts):
        step *= 2
    return step


def _hatched(outside: npt.NDArray[np.bool_]) -> Bytes:
    """Return a picture (H, W, 4) that darkens and hatches some pixels, and leaves others transparent."""
    rows, columns = np.ogrid[: outside.shape[0], : outside.shape[1]]
    stripes = (rows + columns) // _STRIPE_PIXELS % 4 == 0
    return np.where(outside[..., None], np.where(stripes[..., None], _STRIPE, _OUTSIDE), 0).astype(np.uint8)


def _path(pairs: Sequence[Pair]) -> str:
    """Return the outlines of blocks as a path of SVG."""
    import shapely

    blocks: dict[str, list[Any]] = defaultdict(list)
    for pair in pairs:
        top, bottom, left, right = pair.bounds or (0, 0, 0, 0)
        blocks[block_of(pair.key)].append(shapely.box(left, top, right, bottom))
    rings = [
        ring
        for boxes in blocks.values()
        for shape in shapely.get_parts(shapely.union_all(boxes))
        for ring in (shape.exterior, *shape.interiors)
    ]
    return "".join("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in ring.coords[:-1]) + "Z" for ring in rings)
