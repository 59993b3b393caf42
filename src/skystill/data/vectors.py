"""Open vector files: their layers, and the features of a layer within a rectangle. Every error names the file.

Which driver of GDAL opens a file is decided by its name, as for rasters. pyogrio leaves the choice to GDAL, so the
first bytes of a file are compared with its name before (`vector_files`), and the driver that GDAL took afterwards.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.data.vector_files import DRIVERS, check_held, check_vector
from skystill.errors import DataError, SettingsError, shortened
from skystill.raster.grid_files import path_in_crs
from skystill.raster.vector_names import check_vector_name

_BATCH, _BATCH_BYTES = 20_000, 16 * 2**20
_UNDEFINED = '["Undefined '  # GDAL's CRS of a GeoPackage that says that it has none
_SMALL_BYTES = 16 * 2**20
_FIRST_INEXACT = 2.0**53  # of the whole numbers that a float64 may hold another one for
Bounds = tuple[float, float, float, float]
"""Smallest x, smallest y, largest x and largest y, in the CRS of the layer."""


@dataclass(frozen=True)
class Layer:
    """A layer of a vector file.

    Args:
        path: the file.
        name: name of the layer.
        crs: its CRS, as text that pyproj understands.
        fields: names of its attributes.
        kinds: their types in numpy.
        count: number of its features.
        indexed: whether features within a rectangle are found without reading all of them.
        fid: name of the column with the numbers of its features; empty for a Shapefile.
        changed: as in `changes_of`, when it was opened.
    """

    path: Path
    name: str
    crs: str
    fields: tuple[str, ...]
    kinds: tuple[str, ...]
    count: int
    indexed: bool
    fid: str
    changed: tuple[int, ...]

    @property
    def is_small(self) -> bool:
        """Whether all of it can be held in memory, where features are found in a tenth of the time of an index."""
        return self.count <= _BATCH and self.path.stat().st_size <= _SMALL_BYTES

    def __str__(self) -> str:
        return f"{self.path} (layer {self.name})"


@dataclass(frozen=True)
class Features:
    """Some features of a layer.

    Args:
        ids: (N,) numbers of the features in their file.
        geometries: (N,) shapely geometries in the CRS of the layer; None for features without one.
        values: (N,) values of each attribute that was asked for.
        warnings: what GDAL has to say of the file.
    """

    ids: npt.NDArray[np.int64]
    geometries: npt.NDArray[np.object_]
    values: dict[str, npt.NDArray[Any]]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, chosen: npt.NDArray[Any]) -> "Features":
        """Return the features at some places: indices, or (N,) bool."""
        values = {name: column[chosen] for name, column in self.values.items()}
        return Features(self.ids[chosen], self.geometries[chosen], values, self.warnings)


def join_features(parts: Sequence[Features]) -> Features:
    """Return features of one layer that were read in parts."""
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    ids, geometries = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "geometries"))
    return Features(ids, geometries, values, parts[0].warnings)


def list_layers(path: Path) -> tuple[Layer, ...]:
    """Return the layers of a vector file that have geometries.

    Raises:
        DataError: the file is missing or damaged, is not what its name says, has no layer, or a layer has no CRS.
        SettingsError: pyogrio or shapely is not installed, or pyogrio would open another file of this name.
    """
    pyogrio = _pyogrio()
    check_vector_name(path)
    check_vector(path)
    changed = changes_of(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of features come again when they are read
            names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
            found = [(name, pyogrio.read_info(path, layer=name, force_feature_count=True)) for name in names]
    except _errors() as error:
        raise DataError(f"{path}: cannot be read as a vector file: {shortened(error)}.") from error
    driver = DRIVERS[path.suffix.lower()][0]
    if other := {info["driver"] for _, info in found} - {driver}:
        raise DataError(f"{path}: it was taken for {', '.join(other)}; its name says {driver}.")
    if not found:
        raise DataError(f"{path} holds no layer with geometries.")
    if without := [name for name, info in found if not info["crs"] or _UNDEFINED in info["crs"]]:
        raise DataError(
            f"{path}: layer {', '.join(without)} has no CRS, so that nobody knows where it lies.",
            mend="Set it with: ogr2ogr -a_srs EPSG:CODE OUT IN.",
        )
    if grids := [grid for _, info in found if (grid := path_in_crs(info["crs"]))]:
        raise DataError(
            f"{path}: its CRS names the grid file {shortened(grids[0])}, which is a path; it may name those that come "
            "with PROJ only.",
            mend="Set another CRS with: ogr2ogr -a_srs EPSG:CODE OUT IN.",
        )
    # GDAL crashes where the spatial index of a FlatGeobuf is damaged, so that such files are read from end to end.
    return tuple(
        Layer(path, name, info["crs"], tuple(map(str, info["fields"])), tuple(map(str, info["dtypes"])),
              int(info["features"]),
              bool(info["capabilities"]["fast_spatial_filter"]) and driver != "FlatGeobuf",
              str(info["fid_column"]), changed)
        for name, info in found
    )  # fmt: skip


def changes_of(path: Path) -> tuple[int, ...]:
    """Return when a vector file, and the files beside it, were changed last, in nanoseconds.

    A GeoPackage that is open in a GIS has its latest edits in a file beside it, whose name ends in -wal.
    """
    beside = (".dbf", ".shx", ".prj") if path.suffix.lower() == ".shp" else (f"{path.suffix}-wal",)
    files = [path, *(path.with_suffix(suffix) for suffix in beside)]
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())


def read_features(layer: Layer, fields: tuple[str, ...], bounds: Bounds) -> Features:
    """Return the features of a layer whose rectangle touches another one.

    Args:
        layer: the layer.
        fields: the attributes to read.
        bounds: the rectangle, in the CRS of the layer.

    Raises:
        DataError: the layer cannot be read, or is large and has no spatial index.
    """
    if layer.indexed and not layer.is_small:
        return _read(layer, fields, bbox=bounds)
    check_held(layer.path)
    features, boxes = _held(layer, fields)
    left, low, right, high = bounds
    with np.errstate(invalid="ignore"):  # features without a geometry have no rectangle
        here = (boxes[:, 0] <= right) & (boxes[:, 2] >= left) & (boxes[:, 1] <= high) & (boxes[:, 3] >= low)
    return features.select(here)


def read_batches(layer: Layer, fields: tuple[str, ...]) -> Iterator[Features]:
    """Yield all features of a layer: at most 20,000 at a time, and fewer of many points each.

    Raises:
        DataError: as `read_features`.
    """
    if not layer.indexed:
        check_held(layer.path)
        yield _held(layer, fields)[0]
        return
    size = max(1, min(_BATCH, _BATCH_BYTES * layer.count // layer.path.stat().st_size))
    if not layer.fid:
        for first in range(0, layer.count, size):
            yield _read(layer, fields, skip_features=first, max_features=size)
        return
    # To skip features of a GeoPackage, GDAL reads them. Their numbers are its primary key, by which it finds them.
    column = layer.fid.replace('"', '""')
    last: list[int] = []
    after: dict[str, str] = {}
    while True:
        found = _read(layer, fields, max_features=size, **after)
        if (np.diff([*last, *found.ids]) <= 0).any():
            raise DataError(f"{layer}: its features do not come in the order of their numbers. Copy it with ogr2ogr.")
        yield found
        if len(found) < size:
            return
        last = [int(found.ids[-1])]
        after = {"where": f'"{column}" > {last[0]}'}


@functools.lru_cache(maxsize=8)
def _held(layer: Layer, fields: tuple[str, ...]) -> tuple[Features, npt.NDArray[np.float64]]:
    """Return all features of a layer, and the rectangle of each (N, 4)."""
    import shapely

    features = _read(layer, fields)
    return features, shapely.bounds(features.geometries)


def _read(layer: Layer, fields: tuple[str, ...], **which: object) -> Features:
    import shapely

    pyogrio = _pyogrio()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            meta, ids, wkb, columns = pyogrio.raw.read(
                layer.path, layer=layer.name, columns=list(fields), return_fids=True, **which
            )
        said = tuple(dict.fromkeys(shortened(one.message) for one in caught))
        names = map(str, meta["fields"])
        values = {name: _as_stored(layer, name, column) for name, column in zip(names, columns, strict=True)}
        with np.errstate(invalid="ignore"):  # coordinates of damaged files that are NaN have no place; see in_pixels
            return Features(np.asarray(ids, np.int64), shapely.from_wkb(wkb), values, said)
    except (*_errors(), shapely.errors.GEOSException) as error:
        raise DataError(f"{layer}: cannot be read: {shortened(error)}.") from error


def _as_stored(layer: Layer, name: str, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values of an attribute in its type: pyogrio makes floats of true, false and whole numbers beside null.

    Raises:
        ValueError: some are whole numbers that a float cannot hold, or they are lists.
    """
    stored = layer.kinds[layer.fields.index(name)]
    if stored.startswith("list"):
        raise ValueError(f"{name} holds lists ({stored}), and a class is told by one value; make it text or a number")
    kind = np.dtype(stored).kind
    if column.dtype.kind != "f" or kind not in "bi":
        return column
    if kind == "i":
        if (np.abs(column) >= _FIRST_INEXACT).any():
            raise ValueError(
                f"{name} holds numbers of 16 digits or more beside null, which cannot be told apart; make it text"
            )
        return column
    return np.array([None if np.isnan(value) else bool(value) for value in column], object)


def _pyogrio() -> Any:  # noqa: ANN401 - a module without types
    try:
        import pyogrio
        import shapely  # noqa: F401 - the geometries
    except ImportError as error:
        raise SettingsError(
            f'{error}: labels from vectors need it. Install it with pip install "skystill[vector]".'
        ) from error
    return pyogrio


def _errors() -> tuple[type[Exception], ...]:
    from pyogrio import errors

    return (errors.DataSourceError, errors.DataLayerError, errors.FeatureError, errors.FieldError,
            errors.GeometryError, errors.CRSError, ValueError, RuntimeError,
            NameError)  # pyogrio's own, where a CRS is no text  # fmt: skip
