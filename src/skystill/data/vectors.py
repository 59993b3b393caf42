"""Open vector files: their layers, and the features of a layer within a rectangle. Every error names the file.

Which driver of GDAL opens a file is decided by its name, as for rasters. pyogrio leaves the choice to GDAL, so the
first bytes of a file are compared with its name before, and the driver that GDAL took afterwards.
"""

import functools
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.errors import DataError, SettingsError, shortened
from skystill.raster.files import check_regular

DRIVERS = {
    ".gpkg": ("GPKG", rb"SQLite format 3\x00"),
    ".fgb": ("FlatGeobuf", rb"fgb\x03fgb"),
    ".shp": ("ESRI Shapefile", rb"\x00\x00\x27\x0a"),
    ".geojson": ("GeoJSON", rb"(\xef\xbb\xbf)?\s*\{"),
}
"""The driver for each extension, and how such a file begins."""
MOST_HELD_BYTES = 64 * 2**20
"""Largest file without a spatial index. It is held in memory, because each window would read all of it."""
_BATCH = 20_000
_SMALL_BYTES = 16 * 2**20
_LINKED_CRS = re.compile(rb'"crs"\s*:\s*\{[^{}]*("type"\s*:\s*"link"|"href")|"crs"\s*:\s*\{[^{}]*\{[^{}]*"href"')
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
        count: number of its features.
        indexed: whether features within a rectangle are found without reading all of them.
        changed: as in `changes_of`, when it was opened.
    """

    path: Path
    name: str
    crs: str
    fields: tuple[str, ...]
    count: int
    indexed: bool
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


def list_layers(path: Path) -> tuple[Layer, ...]:
    """Return the layers of a vector file that have geometries.

    Raises:
        DataError: the file is missing or damaged, is not what its name says, has no layer, or a layer has no CRS.
        SettingsError: pyogrio or shapely is not installed.
    """
    pyogrio = _pyogrio()
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
    if without := [name for name, info in found if not info["crs"]]:
        raise DataError(
            f"{path}: layer {', '.join(without)} has no CRS, so that nobody knows where it lies.",
            mend="Set it with: ogr2ogr -a_srs EPSG:CODE OUT IN.",
        )
    # GDAL crashes where the spatial index of a FlatGeobuf is damaged, so that such files are read from end to end.
    return tuple(
        Layer(path, name, info["crs"], tuple(map(str, info["fields"])), int(info["features"]),
              bool(info["capabilities"]["fast_spatial_filter"]) and driver != "FlatGeobuf", changed)
        for name, info in found
    )  # fmt: skip


def changes_of(path: Path) -> tuple[int, ...]:
    """Return when a vector file, and the files beside a Shapefile, were changed last, in nanoseconds."""
    files = [path, *(path.with_suffix(suffix) for suffix in (".dbf", ".shx", ".prj") if path.suffix.lower() == ".shp")]
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())


def check_vector(path: Path) -> None:
    """Check that the content of a vector file is what its name says, and that it names no other file or address.

    Raises:
        DataError: it is not.
    """
    driver, begins = DRIVERS[path.suffix.lower()]
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
            rest = file.read() if driver == "GeoJSON" and path.stat().st_size <= MOST_HELD_BYTES else b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if not re.match(begins, head):
        raise DataError(f"{path}: it does not begin as a file of {driver}, which its name says.")
    if _LINKED_CRS.search(head + rest):
        raise DataError(f"{path}: it takes its CRS from another file or address. Write it again with ogr2ogr.")
    if driver == "GPKG":
        _check_tables(path)
    if driver == "ESRI Shapefile" and (size := 2 * int.from_bytes(head[24:28], "big")) > path.stat().st_size:
        raise DataError(f"{path} is cut: it has {path.stat().st_size:,} of {size:,} bytes. Get a whole copy.")


def _check_tables(path: Path) -> None:
    """Refuse virtual tables, which may read other files. Those of spatial indices are made by every GeoPackage."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            made = file.execute("select name, sql from sqlite_master where sql like 'create virtual%'").fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as a GeoPackage: {error}.") from error
    strange = [str(name) for name, sql in made if not re.search(r"using\s+[\"']?rtree", str(sql), re.IGNORECASE)]
    if strange:
        raise DataError(f"{path}: its table {shortened(', '.join(strange))} is a virtual one. Copy it with ogr2ogr.")


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
    check_held(layer)
    features, boxes = _held(layer, fields)
    left, low, right, high = bounds
    with np.errstate(invalid="ignore"):  # features without a geometry have no rectangle
        here = (boxes[:, 0] <= right) & (boxes[:, 2] >= left) & (boxes[:, 1] <= high) & (boxes[:, 3] >= low)
    return features.select(here)


def read_batches(layer: Layer, fields: tuple[str, ...]) -> Iterator[Features]:
    """Yield all features of a layer, 20,000 at a time.

    Raises:
        DataError: as `read_features`.
    """
    if not layer.indexed:
        check_held(layer)
        yield _held(layer, fields)[0]
        return
    for first in range(0, layer.count, _BATCH):
        yield _read(layer, fields, skip_features=first, max_features=_BATCH)


def check_held(layer: Layer) -> None:
    """Refuse a large file without a spatial index.

    Raises:
        DataError: it is one.
    """
    size = layer.path.stat().st_size
    if not layer.indexed and size > MOST_HELD_BYTES:
        raise DataError(
            f"{layer.path} has {size / 2**20:,.0f} MiB and no spatial index, so that each window would read all of it; "
            f"{MOST_HELD_BYTES // 2**20} MiB are possible.",
            mend=f"Write it as a GeoPackage: ogr2ogr {layer.path.with_suffix('.gpkg').name} {layer.path.name}",
        )


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
        values = dict(zip(map(str, meta["fields"]), columns, strict=True))
        with np.errstate(invalid="ignore"):  # coordinates of damaged files that are NaN have no place; see in_pixels
            return Features(np.asarray(ids, np.int64), shapely.from_wkb(wkb), values, said)
    except (*_errors(), shapely.errors.GEOSException) as error:
        raise DataError(f"{layer}: cannot be read: {shortened(error)}.") from error


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
