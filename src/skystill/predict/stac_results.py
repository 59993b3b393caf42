"""`--stac`: a STAC item beside each class raster, and a collection of all items."""

import contextlib
import datetime
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from skystill import __version__
from skystill.classes import VOID, ClassMap
from skystill.errors import DataError
from skystill.parsing import read_json
from skystill.predict.inputs import is_one_file, side_files
from skystill.predict.layers import wanted_layers
from skystill.raster.ground import find_ground
from skystill.raster.opening import open_raster
from skystill.raster.output import PROBABILITY_SCALE
from skystill.raster.source import gdal_environment
from skystill.run_folder import write_json
from skystill.settings import PredictSettings

JsonObject = dict[str, object]
Lonlat = npt.NDArray[np.float64]

COLLECTION = "collection.json"
_EXTENSIONS = {
    "proj:": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "classification:": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "raster:": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
}
_TYPES = {
    ".tif": "image/tiff; application=geotiff", ".tiff": "image/tiff; application=geotiff", ".png": "image/png",
    ".csv": "text/csv", ".gpkg": "application/geopackage+sqlite3", ".geojson": "application/geo+json",
}  # fmt: skip
_COG = "; profile=cloud-optimized"
_ROLES = {"areas": "metadata", "overlay": "overview", "polygons": "data"}
_STEPS = 16  # parts of each edge of a raster: its edges are curves in longitude and latitude
_DIGITS = 7  # of degrees: one centimetre
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def item_of(target: Path) -> Path:
    """Return the STAC item beside a class raster."""
    return target.with_name(f"{target.stem}.stac.json")


def collection_of(settings: PredictSettings) -> Path | None:
    """Return the file of the collection; None if --out is one file, whose item is alone."""
    return None if is_one_file(settings) else settings.out / COLLECTION


def stac_files(targets: Iterable[tuple[str, Path]], settings: PredictSettings) -> list[tuple[str, Path]]:
    """Return what `StacItems` writes, and what each file is, for the check of outputs.

    Args:
        targets: each input with the path of its class raster.
        settings: settings of the command.
    """
    if not settings.stac:
        return []
    found = [(f"STAC item of {source}", item_of(target)) for source, target in targets]
    collection = collection_of(settings)
    return found if collection is None else [*found, ("STAC collection", collection)]


class StacItems:
    """Writes the item of each class raster, and at the end the collection if --out is a folder. Nothing without --stac.

    Args:
        settings: settings of the command.
        classes: names and colours of the labels.
        dates: when an input was taken, where that is known. Others get the time at which their item is written.
    """

    def __init__(self, settings: PredictSettings, classes: ClassMap, dates: Mapping[str, datetime.datetime]) -> None:
        self._settings, self._classes, self._dates = settings, classes, dates
        self._collection = collection_of(settings)
        self._taken: set[str] = set()
        self._items: list[tuple[Path, str, list[float] | None]] = []

    def add(self, source: str, target: Path) -> None:
        """Write the item of a finished class raster.

        Args:
            source: the input.
            target: its class raster.

        Raises:
            DiskFull: the item cannot be written.
        """
        if not self._settings.stac:
            return
        date = self._dates.get(source) or datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        text = date.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
        item, bbox = _item(target, self._settings, self._classes, text)
        item["id"] = _unique(_name(target, self._collection.parent if self._collection else target.parent), self._taken)
        if self._collection is not None:
            href = _relative(self._collection, target)
            item["collection"] = _collection_id(self._collection)
            item["links"] = [_link(rel, href, "application/json") for rel in ("root", "parent", "collection")]
        write_json(item_of(target), item)
        self._items.append((item_of(target), text, bbox))

    def keep(self, target: Path) -> None:
        """List the item of a class raster that an earlier command wrote, if both are there. Call this before `add`.

        Args:
            target: the class raster.
        """
        path = item_of(target)
        if self._collection is None or not target.is_file():
            return
        with contextlib.suppress(DataError):  # it is not there, or is no item any more
            found = _read_item(path)
            self._taken.add(found["id"])
            self._items.append((path, found["properties"]["datetime"], found.get("bbox")))

    def finish(self) -> None:
        """Write the collection of all items.

        Raises:
            DiskFull: it cannot be written.
        """
        if self._collection is not None and self._items:
            write_json(self._collection, _describe_all(self._collection, self._items, self._classes))


def _item(
    target: Path, settings: PredictSettings, classes: ClassMap, date: str
) -> tuple[JsonObject, list[float] | None]:
    """Return the item of a class raster, and its bounds."""
    with gdal_environment(), open_raster(target) as file:
        geometry, bbox = footprint(file)
        place = _place(file)
    assets = {
        layer.name: _raster(layer.path, target, layer.bands, layer.cog)
        for layer in wanted_layers(target, settings.for_raster(), classes)
    }
    assets["classes"]["classification:classes"] = [
        {"value": label, "name": _class_name(name), "title": name, "color_hint": "".join(f"{v:02X}" for v in color)}
        for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
    ]
    for name, path in side_files(target, settings).items():
        assets[name] = {**_asset(path), "roles": [_ROLES[name]]}
    scaled = ["raster:scale"] if settings.confidence or settings.probabilities else []
    used = [*place, *(key for asset in assets.values() for key in asset), *scaled]
    item: JsonObject = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [url for prefix, url in _EXTENSIONS.items() if any(key.startswith(prefix) for key in used)],
        "id": target.stem,
        "geometry": geometry,
        "properties": {
            "datetime": date,
            "description": f"Classes by SkyStill {__version__}.",
            **place,
        },
        "links": [],
        "assets": assets,
    }
    return (item if bbox is None else {**item, "bbox": bbox}), bbox


def _read_item(path: Path) -> Any:  # noqa: ANN401 - JSON
    """Return an item that `StacItems` wrote.

    Raises:
        DataError: it holds something else, or cannot be read.
    """
    found = read_json(path, DataError)
    match found:
        case {"id": str(), "properties": {"datetime": str(date)}}:
            bbox = found.get("bbox")
            is_box = bbox is None or (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_degrees, bbox)))
            if is_box and _DATE.fullmatch(date):
                return found
    raise DataError(f"{path} is no STAC item of a class raster.")


def _is_degrees(value: object) -> bool:
    return isinstance(value, int | float) and -180 <= value <= 180


def footprint(file: rasterio.DatasetReader) -> tuple[JsonObject | None, list[float] | None]:
    """Return the outline of a raster as GeoJSON, and its bounds: west, south, east, north. None if it has no place.

    A raster across the antimeridian, or around a pole, is shown by rectangles; its west is then larger than its east,
    as RFC 7946 asks for.
    """
    ground = find_ground(file.crs, file.transform, file.height, file.width)
    if ground is None or ground.local:
        return None, None
    import pyproj

    at = np.linspace(0, 1, _STEPS + 1)[:-1]
    columns = np.concatenate([at, np.ones_like(at), 1 - at, np.zeros_like(at)]) * file.width
    rows = np.concatenate([np.zeros_like(at), at, np.ones_like(at), 1 - at]) * file.height
    try:
        lon, lat = ground.lonlat(columns, rows)
    except pyproj.exceptions.ProjError:
        return None, None
    if not (np.isfinite(lon) & np.isfinite(lat)).all():
        return None, None
    lon = lon[0] + np.concatenate([[0.0], np.cumsum((np.diff(lon) + 180) % 360 - 180)])
    south, north = float(lat.min()), float(lat.max())
    if ground.poles() or np.ptp(lon) >= 360:
        pole = 90.0 if lat.mean() > 0 else -90.0
        return _boxes([(-180.0, min(south, pole), 180.0, max(north, pole))])
    lon -= 360 * np.floor((lon.min() + 180) / 360)  # west is within -180 to 180
    if lon.max() > 180:
        return _boxes([(float(lon.min()), south, 180.0, north), (-180.0, south, float(lon.max()) - 360, north)])
    ring = [[round(float(x), _DIGITS), round(float(y), _DIGITS)] for x, y in zip(lon, lat, strict=True)]
    ring = ring if _turns_left(lon, lat) else ring[::-1]
    bounds = [lon.min(), south, lon.max(), north]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, [round(float(v), _DIGITS) for v in bounds]


def _boxes(boxes: list[tuple[float, float, float, float]]) -> tuple[JsonObject, list[float]]:
    """Return rectangles as GeoJSON, and the bounds from the west of the first to the east of the last."""
    rings = []
    for box in boxes:
        west, south, east, north = (round(value, _DIGITS) for value in box)
        rings.append([[[west, south], [east, south], [east, north], [west, north], [west, south]]])
    _, south, _, north = boxes[0]
    bounds = [round(value, _DIGITS) for value in (boxes[0][0], south, boxes[-1][2], north)]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}, bounds
    return {"type": "MultiPolygon", "coordinates": rings}, bounds


def _turns_left(x: Lonlat, y: Lonlat) -> bool:
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) > 0


def _place(file: rasterio.DatasetReader) -> JsonObject:
    """Return the fields of the projection extension. A raster without a CRS has its shape only."""
    shape: JsonObject = {"proj:shape": [file.height, file.width]}
    if file.crs is None or file.transform.is_identity:
        return shape
    code = file.crs.to_authority()
    described: JsonObject = (
        {"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": file.crs.to_wkt()}
    )
    return {**described, **shape, "proj:transform": list(file.transform)[:6]}


def _raster(path: Path, target: Path, bands: Sequence[str], cog: bool) -> JsonObject:
    scale = {} if path == target else {"raster:scale": PROBABILITY_SCALE}
    kind = _TYPES[path.suffix.lower()] + (_COG if cog else "")
    described = [{"name": name, "data_type": "uint8", "nodata": VOID, **scale} for name in bands]
    return {**_asset(path), "type": kind, "roles": ["data"], "bands": described}


def _asset(path: Path) -> JsonObject:
    """A file as an asset. Its address is relative to the item, so that both can be moved together."""
    return {"href": f"./{path.name}", "type": _TYPES[path.suffix.lower()]}


def _class_name(name: str) -> str:
    """Return the name of a class in the letters that the extension allows."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name) or "-"


def _name(target: Path, folder: Path) -> str:
    return target.relative_to(folder).with_suffix("").as_posix().replace("/", "-")


def _unique(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, and take it."""
    number, found = 1, name
    while found in taken:
        number, found = number + 1, f"{name}-{number + 1}"
    taken.add(found)
    return found


def _relative(to: Path, target: Path) -> str:
    return Path(os.path.relpath(to, target.parent)).as_posix()  # blanks stay: pystac and others take it as a path


def _link(rel: str, href: str, kind: str) -> JsonObject:
    return {"rel": rel, "href": href if href.startswith(".") else f"./{href}", "type": kind}


def _collection_id(collection: Path) -> str:
    return collection.resolve().parent.name or "classes"


def _describe_all(path: Path, items: Sequence[tuple[Path, str, list[float] | None]], classes: ClassMap) -> JsonObject:
    """Return the collection of items, each with its date and its bounds."""
    dates = sorted(date for _, date, _ in items)
    links = [_link("item", _relative(item, path), "application/geo+json") for item, _, _ in items]
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": _collection_id(path),
        "description": f"Class rasters by SkyStill {__version__}: {', '.join(classes.names)}.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [_extent([bbox for _, _, bbox in items if bbox is not None])]},
            "temporal": {"interval": [[dates[0], dates[-1]]]},
        },
        "links": [_link("root", f"./{path.name}", "application/json"), *links],
    }


def _extent(boxes: Sequence[object]) -> list[float]:
    """Return the bounds of bounds. Where only some of them cross the antimeridian, it is all longitudes."""
    if not boxes:
        return [-180.0, -90.0, 180.0, 90.0]
    found = np.array(boxes, float)
    west, east = float(found[:, 0].min()), float(found[:, 2].max())
    crossing = found[:, 0] > found[:, 2]
    if crossing.any() and not crossing.all():
        west, east = -180.0, 180.0
    return [west, float(found[:, 1].min()), east, float(found[:, 3].max())]
