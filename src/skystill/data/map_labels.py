"""Labels of a raster from features: read by window, brought to its pixels, and burnt at its resolution.

A pixel has the class of the features that cover its centre. Whole layers are never in memory, and a window gets the
same labels as the same place of any other window.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine

from skystill.classes import VOID, ClassMap, Labels
from skystill.data.buffers import grown
from skystill.data.label_layers import LabelLayers, drawn_sources, label_changes, open_layers
from skystill.data.vectors import Features, Layer, changes_of, join_features, read_features
from skystill.errors import DataError
from skystill.features import FeatureSource, attribute_text
from skystill.raster.ground import Ground, find_ground
from skystill.raster.opening import open_raster
from skystill.raster.picture import Bounds
from skystill.raster.source import gdal_environment

_NOMINAL = 0.002  # as in skystill.data.resolution
_RASTERS = 2048  # of maps, of which the place is kept; it takes about 0.1 MB each
_POLYGONS, _COLLECTION = (3, 6), 7  # types of shapely
Geometries = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]


class FlatFeatures(DataError):
    """Lines or points without a buffer."""

    def __init__(self, layer: Layer, number: int, kind: str) -> None:
        self.layer = layer
        super().__init__(
            f"{layer}: feature {number} is a {kind}; lines and points cover no pixel.",
            mend="Give its class a width in classes.yaml: from: {layer: ..., buffer: METRES}.",
        )


@dataclass(frozen=True)
class Burnt:
    """The labels of a window.

    Args:
        labels: (H, W) uint8, 255 = void.
        overlaps: number of pixels that a class took from another one, by (label that lost, label that won).
        outside: number of pixels outside of the area of complete labels.
    """

    labels: Labels
    overlaps: dict[tuple[int, int], int] = field(default_factory=dict)
    outside: int = 0


class MapLabels:
    """The features that label a raster. `open_map` makes it.

    Args:
        image: the raster.
        layers: those of the vector file with its labels.

    Raises:
        DataError: the raster cannot be opened, has no CRS or no transform, or the features cannot be brought to it.
    """

    def __init__(self, image: Path, layers: LabelLayers) -> None:
        import pyproj

        self.image, self.path, self.layers = image, layers.path, layers
        self.area, self.split = layers.area, layers.split
        try:
            with gdal_environment(), open_raster(image) as file:
                self.height, self.width, self.transform = file.height, file.width, file.transform
                ground = find_ground(file.crs, file.transform, file.height, file.width)
        except RasterioError as error:
            raise DataError(f"{image}: cannot be opened as a raster ({error}).") from error
        if ground is None or not ground.transform.determinant:
            raise DataError(
                f"{image} has no CRS with a transform, so that nobody knows where in it the features of "
                f"{self.path.name} lie.",
                mend="Georeference it, or give the labels as masks.",
            )
        self.ground: Ground = ground
        self._smallest: tuple[Bounds | None, tuple[float, float]] = None, (0.0, 0.0)
        try:
            self._from = {layer.crs: _transformer(layer.crs, ground.shifted) for layer in layers.all}
        except pyproj.exceptions.ProjError as error:
            raise DataError(
                f"{self.path}: its features cannot be brought to the CRS of {image.name}: {error}."
            ) from error

    @functools.cached_property
    def pixel_m(self) -> tuple[float, float]:
        """Height and width in metres of the pixel at the centre.

        They are those on the ground. Where the units of the CRS agree to within 0.2 %, as in UTM, they are these.
        """
        on_ground = self.ground.pixel_metres(self.width / 2, self.height / 2)
        nominal = self.ground.nominal_pixel_m
        near = all(abs(one / other - 1) <= _NOMINAL for one, other in zip(nominal, on_ground, strict=True))
        return nominal if near else on_ground

    def transformer(self, layer: Layer) -> Any:  # noqa: ANN401 - from pyproj
        """Return what brings places from the CRS of a layer to that of the raster."""
        return self._from[layer.crs]

    def extent(self, box: Sequence[float]) -> str:
        """Return in words what a rectangle of pixels (left, top, right, bottom) covers in the CRS of the raster."""
        left, top, right, bottom = box
        corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]], float)
        x, y = _placed(self.transform, corners).T
        west, east, south, north = x.min(), x.max(), y.min(), y.max()
        return f"x {west:.10g} to {east:.10g}, y {south:.10g} to {north:.10g}"

    def in_pixels(self, layer: Layer, geometries: Geometries, must: bool = True) -> Geometries:
        """Return geometries in columns and rows of the raster, from its top left corner. Edges stay straight lines.

        Args:
            layer: their layer.
            geometries: in its CRS.
            must: whether all must have a place in the CRS of the raster. Otherwise it may be at infinity.

        Raises:
            DataError: one of them has none.
        """
        import shapely

        to_map, to_pixels = self._from[layer.crs], ~self.transform

        def move(points: Floats) -> Floats:
            x, y = to_map.transform(points[:, 0], points[:, 1])
            return _placed(to_pixels, np.stack([x, y], axis=1))

        try:
            moved: Geometries = np.asarray(shapely.transform(geometries, move), object)
        except shapely.errors.GEOSException as error:  # a ring of which only one end is at infinity
            raise DataError(
                f"{layer}: a geometry is damaged, or has no place in the CRS of {self.image.name} in part: the CRS of "
                f"the layer may not be the right one ({error})."
            ) from error
        if must and not np.isfinite(shapely.get_coordinates(moved)).all():
            raise DataError(
                f"{layer}: features have no place in the CRS of {self.image.name}: they lie too far from it, or the "
                "CRS of the layer is not the right one."
            )
        return moved

    def features(self, layer: Layer, fields: tuple[str, ...], bounds: Bounds, reach_m: float = 0) -> Features:
        """Return the features in or near a window, in pixels. Those without a geometry are left out.

        Args:
            layer: the layer.
            fields: the attributes to read.
            bounds: the window.
            reach_m: metres around it.

        Raises:
            DataError: the layer cannot be read.
        """
        import shapely

        reach = 1.5 * reach_m / self.ground.uprightness
        down, across = (2 + reach / side for side in self._smallest_pixel(bounds))
        top, bottom, left, right = bounds
        near = shapely.box(left - across, top - down, right + across, bottom + down)
        parts = [self._features_near(layer, fields, near, offset) for offset in self.turns]
        return parts[0] if len(parts) == 1 else join_features(parts)

    def _features_near(self, layer: Layer, fields: tuple[str, ...], near: Any, offset: Floats) -> Features:  # noqa: ANN401
        """Return the features that lie in a rectangle of pixels once they are moved by an offset."""
        import shapely

        def place(points: Floats) -> Floats:
            return _placed(self.transform, points - offset)

        low_x, low_y, high_x, high_y = shapely.transform(near, place).bounds
        west, south, east, north = self._from[layer.crs].transform_bounds(
            low_x, low_y, high_x, high_y, direction="INVERSE"
        )
        if west > east:  # across the antimeridian
            west, east = -180.0, 180.0
        if not np.isfinite([west, south, east, north]).all():
            raise DataError(f"{layer}: its CRS has no place for {self.image.name}.")
        found = read_features(layer, fields, (west, south, east, north))
        found = found.select(~(shapely.is_missing(found.geometries) | shapely.is_empty(found.geometries)))
        moved = self.in_pixels(layer, found.geometries)
        if offset.any():
            moved = np.asarray(shapely.transform(moved, lambda points: points + offset), object)
        return Features(found.ids, moved, found.values)

    @property
    def turn_step(self) -> Floats | None:
        """The step in pixels, column and row, once round the Earth; None in a CRS in which that has no meaning."""
        turn, to = self.ground.turn, ~self.transform
        return None if turn is None else np.array([to.a, to.d]) * turn

    @functools.cached_property
    def turns(self) -> list[Floats]:
        """Steps in pixels by which features are moved to be found: none, and once round the Earth.

        The latter is needed by rasters that reach beyond the antimeridian: features there may have longitudes of the
        other sign.
        """
        step, turn, none = self.turn_step, self.ground.turn, np.zeros(2)
        if step is None or turn is None:
            return [none]
        corners = [[column, row] for column in (0, self.width) for row in (0, self.height)]
        x = _placed(self.transform, np.array(corners, float))[:, 0]
        return [none, *([step] if x.max() > turn / 2 else []), *([-step] if x.min() < -turn / 2 else [])]

    def _smallest_pixel(self, bounds: Bounds) -> tuple[float, float]:
        known, smallest = self._smallest
        if known != bounds:  # each layer asks for the same window
            top, bottom, left, right = bounds
            sides = [self.ground.pixel_metres(x, y) for x in (left, right) for y in (top, bottom)]
            down, across = np.nanmin(np.array([*sides, self.pixel_m]), axis=0).tolist()
            smallest = down, across
            self._smallest = bounds, smallest
        return smallest

    def polygons(
        self, layer: Layer, found: Features, buffer_m: float | None, bounds: Bounds | None = None
    ) -> Geometries:
        """Return the features as valid polygons, grown by a buffer. What is no polygon after that is left out.

        Args:
            layer: their layer, for messages.
            found: features in pixels.
            buffer_m: metres on the ground; None for none.
            bounds: a window, to return only polygons whose rectangle touches it. A feature may have a million others.

        Raises:
            FlatFeatures: there are lines or points, and no buffer.
        """
        geometries = found.geometries
        if buffer_m is None:
            flat = is_flat(geometries)
            if flat.any():
                raise FlatFeatures(layer, int(found.ids[flat][0]), geometries[flat][0].geom_type)
        else:
            geometries = grown(geometries, self.ground, buffer_m, self.path)
        return mended(geometries, bounds)

    def inside_area(self, bounds: Bounds, step: int = 1) -> npt.NDArray[np.bool_] | None:
        """Return (H, W) bool, True where labels are complete; None without an area layer. `step` is that of `burn`."""
        if self.area is None:
            return None
        found = self.features(self.area, (), bounds)
        return burnt_mask(self.polygons(self.area, found, None, bounds), bounds, step)

    def burn(self, bounds: Bounds, classes: ClassMap, step: int = 1) -> Burnt:
        """Return the labels of a window.

        Args:
            bounds: the window.
            classes: the classes with their sources, which `check_classes` has seen.
            step: side in pixels of the squares of which one label each is returned, that of their centre.

        Raises:
            DataError: a layer cannot be read, or holds lines or points without a buffer.
        """
        top, bottom, left, right = bounds
        labels = np.full((-(-(bottom - top) // step), -(-(right - left) // step)), VOID, np.uint8)
        inside = self.inside_area(bounds, step)
        if inside is not None and not inside.any():
            return Burnt(labels, outside=labels.size)
        overlaps: dict[tuple[int, int], int] = {}
        near = self._near(bounds, classes)
        for name, label, source in drawn_sources(classes):
            layer = self.layers.layer_of(source, name)
            found = chosen(near[layer], source)
            mask = (
                burnt_mask(self.polygons(layer, found, source.buffer_m, bounds), bounds, step) if len(found) else None
            )
            if mask is None:
                continue
            mask = mask if inside is None else mask & inside
            lost = np.bincount(labels[mask], minlength=256)
            for other in np.flatnonzero(lost[:VOID]).tolist():
                if other != label:
                    overlaps[other, label] = overlaps.get((other, label), 0) + int(lost[other])
            labels[mask] = label
        rest = [label for label, sources in enumerate(classes.sources) if sources[0].rest]
        if rest:
            labels[(labels == VOID) if inside is None else (labels == VOID) & inside] = rest[0]
        return Burnt(labels, overlaps, 0 if inside is None else int((~inside).sum()))

    def _near(self, bounds: Bounds, classes: ClassMap) -> dict[Layer, Features]:
        """Return the features of each layer of the classes in or near a window; each layer is read once."""
        wanted: dict[Layer, tuple[set[str], float]] = {}
        for name, _, source in drawn_sources(classes):
            layer = self.layers.layer_of(source, name)
            fields, reach = wanted.get(layer, (set(), 0.0))
            wanted[layer] = fields | ({source.field} if source.field else set()), max(reach, source.buffer_m or 0.0)
        return {
            layer: self.features(layer, tuple(sorted(fields)), bounds, reach)
            for layer, (fields, reach) in wanted.items()
        }


def _placed(to: Affine, points: Floats) -> Floats:
    """Return points (N, 2) moved by a transform."""
    x, y = points[:, 0], points[:, 1]
    with np.errstate(invalid="ignore"):  # points at infinity
        return np.stack([to.a * x + to.b * y + to.c, to.d * x + to.e * y + to.f], axis=1)


def chosen(found: Features, source: FeatureSource) -> Features:
    """Return the features that a source takes."""
    if source.field is None:
        return found
    values = [attribute_text(value) for value in found.values[source.field].tolist()]
    return found.select(np.isin(np.array(values, object).astype(str), source.values) if values else np.zeros(0, bool))


def is_flat(geometries: Geometries) -> npt.NDArray[np.bool_]:
    """Return which geometries are lines or points, or hold some."""
    import shapely

    parts, owners = np.asarray(geometries, object), np.arange(len(geometries))
    while (shapely.get_type_id(parts) == _COLLECTION).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        owners = owners[inner]
    flat = np.zeros(len(geometries), bool)
    flat[owners[~np.isin(shapely.get_type_id(parts), _POLYGONS)]] = True
    return flat


def mended(geometries: Geometries, near: Bounds | None = None) -> Geometries:
    """Return the polygons of geometries; those that are not valid, such as a self-crossing ring, are mended.

    Each polygon of a multi-polygon is mended by itself, so that what two of them cover is covered.

    Args:
        geometries: in columns and rows.
        near: a window, to return only polygons whose rectangle touches it.
    """
    import shapely

    parts = _polygons(geometries)
    if near is not None and len(parts):
        (top, bottom, left, right), boxes = near, shapely.bounds(parts)
        parts = parts[(boxes[:, :2] <= (right, bottom)).all(axis=1) & (boxes[:, 2:] >= (left, top)).all(axis=1)]
    invalid = ~shapely.is_valid(parts)
    if invalid.any():
        parts[invalid] = shapely.make_valid(parts[invalid])
        parts = _polygons(parts)
    return parts


def _polygons(geometries: Geometries) -> Geometries:
    import shapely

    parts = np.asarray(geometries, object).copy()
    while (shapely.get_type_id(parts) >= 4).any():  # multi-polygons and collections
        parts = shapely.get_parts(parts)
    return np.asarray(parts[(shapely.get_type_id(parts) == 3) & ~shapely.is_empty(parts)], object)


def burnt_mask(polygons: Iterable[Any], bounds: Bounds, step: int) -> npt.NDArray[np.bool_]:
    """Return (H, W) bool, True for squares of step x step pixels of a window whose centre lies in a polygon."""
    top, bottom, left, right = bounds
    shape, shapes = (-(-(bottom - top) // step), -(-(right - left) // step)), [(polygon, 1) for polygon in polygons]
    if not shapes:
        return np.zeros(shape, bool)
    to_window = Affine.translation(left, top) * Affine.scale(step)
    burnt = rasterize(shapes, shape, transform=to_window, dtype=np.uint8, all_touched=False)
    return np.asarray(burnt, np.uint8).view(bool)


def open_map(image: Path, labels: Path) -> MapLabels:
    """Return the features that label a raster. It is kept for the next window.

    Raises:
        DataError: as `MapLabels`, or a file is missing.
    """
    return _opened(image, labels, changes_of(image), label_changes(labels))


@functools.lru_cache(maxsize=_RASTERS)
def _opened(
    image: Path, labels: Path, changed: tuple[int, ...], of_labels: tuple[tuple[int, ...], ...]
) -> MapLabels:  # when the raster changed is only part of the key
    return MapLabels(image, open_layers(labels, of_labels))


@functools.lru_cache(maxsize=64)
def _transformer(layer: str, raster: Any) -> Any:  # noqa: ANN401 - from pyproj, which is imported where it is used
    import pyproj

    return pyproj.Transformer.from_crs(layer, raster, always_xy=True)
