"""Files of polygons: a GeoPackage that grows in batches, and GeoJSON that is written one feature after the other.

Needs shapely, and GeoPackages need pyogrio, too (`pip install "skystill[vector]"`).
"""

import contextlib
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely

from skystill.classes import ClassMap
from skystill.errors import DiskFull, SettingsError
from skystill.predict.to_map import ToMap
from skystill.raster.styles import style_document

_BATCH = 5_000
_GPKG_VERSION = "1.2"  # older programs warn of a newer one, such as GDAL 3.6 of Debian 12. Nothing newer is used

Geometry = Any  # shapely has no type annotations


def check_geopackages() -> None:
    """Import what GeoPackages need, so that it is missing now and not after hours, and counts in the memory plan.

    Raises:
        SettingsError: pyogrio is not installed.
    """
    try:
        importlib.import_module("skystill.predict.layer_styles")
    except ImportError as error:
        raise SettingsError(f'{error}: GeoPackages need it. Install it with pip install "skystill[vector]".') from error


class GeoPackage:
    """Appends polygons to a GeoPackage in batches. `check_geopackages` says whether it can."""

    def __init__(self, path: Path, source: rasterio.DatasetReader, classes: ClassMap) -> None:
        self._path, self._classes = path, classes
        self._to_map = ToMap(source, lonlat=False)
        self._crs = source.crs.to_wkt() if source.crs else None
        self._held: tuple[list[Geometry], list[int]] = ([], [])
        self._begun = False

    def __enter__(self) -> "GeoPackage":
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            from skystill.predict.layer_styles import add_layer_style  # needs pyogrio

            self._flush()
            add_layer_style(self._path, "classes", style_document(self._classes, raster=False))

    def write(self, geometries: list[Geometry], labels: list[int]) -> None:
        """Write polygons, given in pixel coordinates."""
        self._held[0].extend(geometries)
        self._held[1].extend(labels)
        if len(self._held[0]) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        geometries, labels = self._held
        self._held = ([], [])
        if self._begun and not geometries:
            return
        for first in range(0, max(1, len(geometries)), _BATCH):
            self._append(geometries[first : first + _BATCH], labels[first : first + _BATCH])

    def _append(self, geometries: list[Geometry], labels: list[int]) -> None:
        import pyogrio  # with a GDAL of its own, it is larger than all that GeoJSON needs

        areas = np.array([np.nan if area is None else area for area in self._to_map.areas(geometries)], float)
        try:
            pyogrio.raw.write(
                self._path,
                shapely.to_wkb(np.asarray(self._to_map(geometries), object)),
                [np.array([self._classes.names[label] for label in labels], object), np.array(labels, np.int32), areas],
                np.array(["class", "label", "area_m2"]),
                layer="classes",
                driver="GPKG",
                geometry_type="Unknown",
                crs=self._crs,
                append=self._begun,
                dataset_options={"VERSION": _GPKG_VERSION},
            )
        except (RuntimeError, OSError) as error:
            raise DiskFull(self._path, error) from error
        self._begun = True


class GeoJson:
    """Writes polygons to a GeoJSON file one after the other."""

    def __init__(self, path: Path, source: rasterio.DatasetReader, classes: ClassMap) -> None:
        self._path, self._classes = path, classes
        self._to_map = ToMap(source, lonlat=True)
        self._first = True
        self._files = contextlib.ExitStack()

    def __enter__(self) -> "GeoJson":
        self._file = self._files.enter_context(self._path.open("w", encoding="utf-8"))
        self._file.write('{"type": "FeatureCollection", "features": [')
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self._file.write("\n]}\n")
        self._files.close()

    def write(self, geometries: list[Geometry], labels: list[int]) -> None:
        """Write polygons, given in pixel coordinates."""
        for shape, label, area in zip(self._to_map(geometries), labels, self._to_map.areas(geometries), strict=True):
            about = {"class": self._classes.names[label], "label": label, "area_m2": area}
            feature = {"type": "Feature", "properties": about, "geometry": shapely.geometry.mapping(shape)}
            self._file.write(("" if self._first else ",") + "\n" + json.dumps(feature))
            self._first = False
