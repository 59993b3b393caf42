"""Convert a class raster to polygons that are merged across windows, in bounded memory.

The raster is read window by window; a window in which the class changes very often is taken in strips of rows. Polygons
that lie inside of one are written immediately. Polygons that touch its border are kept, and are joined with their
neighbours when no later one can add to them. Needs shapely
(`pip install "skystill[vector]"`).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.windows import Window

from skystill.classes import VOID, ClassMap
from skystill.errors import SettingsError
from skystill.progress import Note, OnProgress, Progress, ignore_progress, tracked
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment
from skystill.raster.vector_names import check_vector_name
from skystill.run_folder import written_whole

try:
    import shapely

    from skystill.predict.polygon_files import GeoJson, Geometry, GeoPackage, check_geopackages
    from skystill.predict.simplify import simplified_rings
    from skystill.predict.square import Squarer
except ImportError as error:
    raise SettingsError(f'{error}: polygons need it. Install it with pip install "skystill[vector]".') from error

_WINDOW = 2048
_CHANGES = 200_000  # places of a window where the class changes: with more, it is traced in strips of rows
_COUNTED_ROWS = 64
_WRITTEN = 5_000  # polygons that are written at once, which takes a second at most
_HELD_VERTICES = 2_000_000  # largest number of vertices of incomplete polygons: about 60 MB


@dataclass(frozen=True)
class Polygons:
    """The polygons that were written.

    Args:
        path: the file.
        count: number of polygons in the file.
        split: how often a part of a polygon was written early, because too many vertices were held.
        squared: number of polygons that have right angles.
        kept: number of polygons that should have right angles, and stay as they are.
    """

    path: Path
    count: int
    split: int
    squared: int = 0
    kept: int = 0


class _Writer(Protocol):
    """Takes finished polygons in pixel coordinates (x right, y down), and the label of each."""

    def write(self, geometries: list[Geometry], labels: list[int]) -> None: ...


def write_polygons(
    raster: Path,
    path: Path,
    classes: ClassMap,
    on_progress: OnProgress = ignore_progress,
    tolerance: float | None = None,
    square: Sequence[int] = (),
) -> Polygons:
    """Write the polygons of a class raster.

    Args:
        raster: the class raster, as `Predictor.predict` writes it.
        path: the file to write. A .gpkg is in the CRS of the raster. Any other file is GeoJSON (RFC 7946), in longitude
            and latitude if the raster has a CRS: rings follow the right-hand rule, and polygons are cut at the
            antimeridian.
        classes: names and colours of the labels. A .gpkg holds them as a style, too.
        on_progress: called with a `Progress` after each window and, within one, at least every few seconds, and with a
            `Note` about polygons with right angles.
        tolerance: simplifies the polygons by this many pixels. Where a border of polygons crosses a border of windows,
            every 2048 pixels or, where classes change at every other pixel, more often, it keeps a vertex. None
            keeps the edges of the pixels.
        square: labels of the polygons whose angles become right angles.

    Raises:
        DataError: GeoJSON of a raster whose CRS has no longitude and latitude.
        DiskFull: the file cannot be written.
        SettingsError: a GeoPackage is to be written, and pyogrio is not installed, or would write another file.
    """
    is_geopackage = path.suffix.lower() == ".gpkg"
    if is_geopackage:
        check_geopackages()
        check_vector_name(path)
    with gdal_environment(), open_raster(raster) as source, written_whole(path) as part:
        make = GeoPackage if is_geopackage else GeoJson
        with make(part, source, classes) as writer:
            squarer = Squarer(source, square, tolerance)
            windows, task = _windows(source.height, source.width), f"polygons of {raster.name}"
            done = 0
            joiner = _Joiner(
                (source.height, source.width), writer, tolerance, squarer,
                lambda: on_progress(Progress(task, done, len(windows))),  # a window may take minutes
            )  # fmt: skip
            for done, window in enumerate(tracked(windows, task, on_progress)):  # noqa: B007 - told in between
                joiner.add(window, source.read(1, window=window))
            joiner.finish()
    if square:
        on_progress(Note(squarer.note([classes.names[label] for label in square])))
    return Polygons(path, joiner.count, joiner.split, squarer.squared, squarer.kept)


def _windows(height: int, width: int) -> list[Window]:
    return [
        Window(left, top, min(_WINDOW, width - left), min(_WINDOW, height - top))
        for top in range(0, height, _WINDOW)
        for left in range(0, width, _WINDOW)
    ]


@dataclass
class _Waiting:
    """The parts of one polygon that is not complete yet."""

    label: int
    parts: list[Geometry] = field(default_factory=list)
    vertices: int = 0
    whole: bool = True  # False if parts were written already


Edge = list[tuple[int, int, int, int]]
"""Spans along a border of a window: start and end in pixels, label, and number of the part."""


class _Joiner:
    """Joins polygons across windows that are added row by row.

    Args:
        size: height and width of the raster in pixels.
        writer: takes finished polygons in pixel coordinates (x right, y down).
        tolerance: simplifies polygons by this many pixels; None does not.
        squarer: makes the angles of complete polygons right angles.
        on_written: called after some polygons were written. What it raises ends the work.
    """

    def __init__(
        self,
        size: tuple[int, int],
        writer: _Writer,
        tolerance: float | None,
        squarer: Squarer,
        on_written: Callable[[], None],
    ) -> None:
        self._height, self._width = size
        self._on_written = on_written
        self._writer, self._tolerance, self._squarer = writer, tolerance, squarer
        self._parents: dict[int, int] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._next = 0
        self._right: Edge = []  # right border of the window to the left
        self._above: dict[int, Edge] = {}  # bottom borders of the row above, by the left column of the window
        self._below: dict[int, Edge] = {}
        self.count = 0
        self.split = 0

    def add(self, window: Window, labels: npt.NDArray[np.uint8]) -> None:
        """Add the polygons of the next window.

        Args:
            window: its place in the raster, column-first (rasterio).
            labels: (H, W) uint8; 255 = void is skipped.
        """
        left, top = int(window.col_off), int(window.row_off)
        if left == 0:
            self._right = []
            self._end_row()
        strips = _strips(labels)
        sides: dict[str, Edge] = {"left": [], "right": []}
        above = self._above.get(left, [])
        for rows in strips:
            edges = self._add_strip(labels[rows], left, top + rows.start, left + int(window.width))
            self._match(above, edges["top"])
            above = edges["bottom"]
            for side, spans in sides.items():
                spans.extend(edges[side])
            if len(strips) > 1:
                self._settle([*sides.values(), above])
        self._match(self._right, sides["left"])
        self._right = sides["right"]
        self._below[left] = above

    def _add_strip(self, labels: npt.NDArray[np.uint8], left: int, top: int, right: int) -> dict[str, Edge]:
        """Write polygons that lie inside of a strip of rows, hold the others, and return where they touch its border.

        Args:
            labels: (H, W) uint8.
            left: the first column.
            top: the first row.
            right: the column after the last one.
        """
        bottom = top + labels.shape[0]
        edges: dict[str, Edge] = {"left": [], "right": [], "top": [], "bottom": []}
        lines = {
            "left": (0, left if left > 0 else None),
            "right": (0, right if right < self._width else None),
            "top": (1, top if top > 0 else None),
            "bottom": (1, bottom if bottom < self._height else None),
        }
        inner: list[Geometry] = []
        inner_labels: list[int] = []
        for rings, value in self._traced(labels, left, top):
            spans_of = {side: _spans_on(rings[0], *line) for side, line in lines.items() if line[1] is not None}
            polygon = shapely.Polygon(rings[0], rings[1:])
            if not any(spans_of.values()):
                inner.append(self._squarer(polygon, value))
                inner_labels.append(value)
                if len(inner) >= _WRITTEN:
                    self._give(inner, inner_labels)
                    inner, inner_labels = [], []
                continue
            number = self._hold(value, polygon)
            for side, spans in spans_of.items():
                edges[side].extend((start, end, value, number) for start, end in spans)
        self._give(inner, inner_labels)
        return edges

    def _traced(
        self, labels: npt.NDArray[np.uint8], left: int, top: int
    ) -> Iterator[tuple[list[npt.NDArray[np.float64]], int]]:
        """Yield the rings of each polygon of a window, and its label."""
        if self._tolerance is not None:
            yield from simplified_rings(labels, left, top, self._tolerance)
            return
        found = shapes(labels, mask=labels != VOID, connectivity=4, transform=Affine.translation(left, top))
        for shape, value in found:
            yield [np.asarray(ring) for ring in shape["coordinates"]], int(value)

    def finish(self) -> None:
        """Write all polygons that are still kept."""
        self._end_row()
        self._below = {}
        self._end_row()

    def _hold(self, label: int, polygon: Geometry) -> int:
        number = self._next
        self._next += 1
        self._parents[number] = number
        self._waiting[number] = _Waiting(label, [polygon], shapely.get_num_coordinates(polygon))
        return number

    def _match(self, one: Edge, other: Edge) -> None:
        """Join parts that have the same label and touch across a border."""
        one, other = sorted(one), sorted(other)
        here = there = 0
        while here < len(one) and there < len(other):
            first, second = one[here], other[there]
            if first[2] == second[2] and min(first[1], second[1]) > max(first[0], second[0]):
                self._join(first[3], second[3])
            if first[1] <= second[1]:
                here += 1
            else:
                there += 1

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one == other:
            return
        self._parents[other] = one
        mine, theirs = self._waiting[one], self._waiting.pop(other)
        mine.parts.extend(theirs.parts)
        mine.vertices += theirs.vertices
        mine.whole = mine.whole and theirs.whole

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _end_row(self) -> None:
        self._above, self._below = self._below, {}
        self._settle([])

    def _settle(self, more: Sequence[Edge]) -> None:
        """Write polygons to which nothing can be added any more.

        If too many vertices are held, the parts of the largest remaining polygons are written as well.

        Args:
            more: borders that later polygons may touch, besides those of finished windows.
        """
        edges = [*self._above.values(), *self._below.values(), self._right, *more]
        roots = {span[3]: self._root(span[3]) for edge in edges for span in edge}
        open_numbers = set(roots.values())
        self._release([number for number in self._waiting if number not in open_numbers])
        held = sum(waiting.vertices for waiting in self._waiting.values())
        for number in sorted(self._waiting, key=lambda number: -self._waiting[number].vertices):
            if held <= _HELD_VERTICES:
                break
            waiting = self._waiting[number]
            held -= waiting.vertices
            self.split += 1
            self._give([self._joined(waiting, whole=False)], [waiting.label])
            self._waiting[number] = _Waiting(waiting.label, whole=False)
        self._parents = {**roots, **{root: root for root in open_numbers}}

    def _release(self, numbers: list[int]) -> None:
        done = [self._waiting.pop(number) for number in numbers]
        done = [waiting for waiting in done if waiting.parts]
        joined = [self._joined(waiting, waiting.whole) for waiting in done]
        self._give(joined, [waiting.label for waiting in done])

    def _joined(self, waiting: _Waiting, whole: bool) -> Geometry:
        return self._squarer(_union(waiting.parts), waiting.label, whole)

    def _give(self, geometries: list[Geometry], labels: list[int]) -> None:
        if geometries:
            self._writer.write(geometries, labels)
            self.count += len(geometries)
            self._on_written()


def _union(parts: list[Geometry]) -> Geometry:
    """Merge parts that share edges. Simplifying by 0 removes the points inside straight lines."""
    return parts[0] if len(parts) == 1 else shapely.simplify(shapely.union_all(parts), 0)


def _strips(labels: npt.NDArray[np.uint8]) -> list[slice]:
    """Cut a window into strips of rows with at most `_CHANGES` places where the class changes, which bounds polygons.

    Args:
        labels: (H, W) uint8.
    """
    changes = np.zeros(len(labels), np.int64)
    for top in range(0, len(labels), _COUNTED_ROWS):  # comparing all at once would take twice the memory of the window
        own, below = labels[top : top + _COUNTED_ROWS], labels[top + 1 : top + 1 + _COUNTED_ROWS]
        changes[top : top + len(own)] += np.count_nonzero(own[:, 1:] != own[:, :-1], axis=1)
        changes[top + 1 : top + 1 + len(below)] += np.count_nonzero(below != own[: len(below)], axis=1)
    total = np.cumsum(changes)
    cuts = np.searchsorted(total, np.arange(_CHANGES, int(total[-1]), _CHANGES))
    rows = [0, *np.unique(cuts[cuts > 0]).tolist(), len(labels)]
    return [slice(start, stop) for start, stop in itertools.pairwise(rows)]


def _spans_on(ring: npt.NDArray[np.float64], axis: int, line: int | None) -> list[tuple[int, int]]:
    """Return the spans of a ring that lie on the line x = `line` (axis 0) or y = `line` (axis 1)."""
    on = ring[:, axis] == line
    both = np.flatnonzero(on[:-1] & on[1:])
    along = ring[:, 1 - axis].astype(int)
    return [(min(along[i], along[i + 1]), max(along[i], along[i + 1])) for i in both]
