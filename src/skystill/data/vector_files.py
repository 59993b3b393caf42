"""What a vector file may be: of the kind that its name says, without names of other files, and without endless views.

GDAL opens a file and those beside it before anybody can ask what is in them, so that this is checked before.
"""

import functools
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from skystill.databases import computed_tables
from skystill.errors import DataError, shortened
from skystill.raster.files import check_regular, special_beside

DRIVERS = {
    ".gpkg": ("GPKG", rb"SQLite format 3\x00"),
    ".fgb": ("FlatGeobuf", rb"fgb\x03fgb"),
    ".shp": ("ESRI Shapefile", rb"\x00\x00\x27\x0a"),
    ".geojson": ("GeoJSON", rb"(\xef\xbb\xbf)?\s*\{"),
}
"""The driver for each extension, and how such a file begins."""
MOST_HELD_BYTES = 64 * 2**20
"""Largest file without a spatial index. It is held in memory, because each window would read all of it."""
_OTHERS = (".gml", ".kml", ".kmz", ".dxf", ".geojsonl", ".geojsons", ".topojson", ".parquet", ".geoparquet")
_MOST_TEXT_BYTES = 2**20  # of a CRS beside a Shapefile, which GDAL reads whole
# A text of the three letters, each written as it is or escaped, in quotes of JSON or of GDAL's lenient parser.
_CRS = re.compile(rb"[\"'](?:c|\\u0*[46]3)(?:r|\\u0*[57]2)(?:s|\\u0*[57]3)[\"']", re.IGNORECASE)
_MOST_CRS_BYTES = 2**16
_NAME = r"""(?:\w+|"(?:[^"]|"")*"|'(?:[^']|'')*'|\[[^]]*\]|`[^`]*`)"""
_SPATIAL_INDEX = re.compile(
    rf"create\s+virtual\s+table\s+(?:if\s+not\s+exists\s+)?{_NAME}\s+using\s+[\"']?rtree[\"']?\s*\(", re.IGNORECASE
)


def files_called(folder: Path, name: str) -> list[Path]:
    """Return the vector files in a folder that have a name, in upper or lower case as is the extension."""
    try:
        return [path for path in _vector_files(folder, folder.stat().st_mtime_ns) if path.stem.lower() == name]
    except OSError:  # opening the file that was asked for says why
        return []


@functools.lru_cache(maxsize=16)
def _vector_files(folder: Path, changed: int) -> list[Path]:  # when the folder changed is only part of the key
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in DRIVERS and path.is_file())


def other_vectors(folder: Path) -> list[Path]:
    """Return the files in a folder that may hold features and cannot label a map: of another name or another kind."""
    try:
        return sorted(
            path for path in folder.iterdir() if path.suffix.lower() in (*DRIVERS, *_OTHERS) and path.is_file()
        )
    except OSError:
        return []


def check_vector(path: Path) -> None:
    """Check that the content of a vector file is what its name says, and that it names no other file or address.

    Raises:
        DataError: it is not.
    """
    driver, begins = DRIVERS[path.suffix.lower()]
    check_regular(path)
    if beside := special_beside(str(path), frozenset()):
        check_regular(beside)
    if driver == "GeoJSON":
        check_held(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
            content = head + file.read() if driver == "GeoJSON" else b""
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if not re.match(begins, head):
        raise DataError(f"{path}: it does not begin as a file of {driver}, which its name says.")
    if not all(_names_its_crs(content, found.end()) for found in _CRS.finditer(content)):
        raise DataError(f"{path}: it takes its CRS from another file or address. Write it again with ogr2ogr.")
    if driver == "GPKG":
        _check_tables(path)
    if driver == "ESRI Shapefile":
        _check_shapefile(path, 2 * int.from_bytes(head[24:28], "big"), size)


def check_held(path: Path) -> None:
    """Refuse a large file without a spatial index.

    Raises:
        DataError: it is one.
    """
    size = path.stat().st_size
    if size > MOST_HELD_BYTES:
        raise DataError(
            f"{path} has {size / 2**20:,.0f} MiB and no spatial index, so that each window would read all of it; "
            f"{MOST_HELD_BYTES // 2**20} MiB are possible.",
            mend=f"Write it as a GeoPackage: ogr2ogr {path.with_suffix('.gpkg').name} {path.name}",
        )


def _names_its_crs(content: bytes, at: int) -> bool:
    """Return whether what follows a text "crs" is no CRS, or one by its name. Links are opened by GDAL.

    Args:
        content: GeoJSON.
        at: the place behind the text.
    """
    after = content[at : at + _MOST_CRS_BYTES].decode("utf-8", "replace").lstrip()
    if after[:1] in (",", "]", "}"):  # a value, not a key
        return True
    try:  # GDAL does not mind case, and takes one of two keys of one name
        value, _ = json.JSONDecoder(object_pairs_hook=list).raw_decode(after[1:].lstrip())
    except (ValueError, RecursionError):
        return False
    if after[:1] != ":":
        return False
    kinds = [kind for key, kind in _pairs(value) if key.lower() == "type"]
    return not isinstance(value, list) or all(str(kind).lower() in ("name", "epsg", "ogc") for kind in kinds)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - from JSON
    """Yield the pairs of an object of JSON that was read as a list of pairs."""
    for one in value if isinstance(value, list) else ():
        if isinstance(one, tuple):
            yield one


def _check_tables(path: Path) -> None:
    """Refuse what makes a GeoPackage compute, or read other files, where it is only read.

    These are virtual tables (those of spatial indices are made by every GeoPackage), views that GDAL reads, which may
    never end, and columns that are computed, which may be of any size.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            made = file.execute("select name, sql, rootpage, type from sqlite_master").fetchall()
            views = {str(name).lower() for name, *_, kind in made if kind == "view"}
            read = {str(name).lower() for (name,) in _layers(file)} if "gpkg_contents" not in views else set()
            computed = computed_tables(file)
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as a GeoPackage: {error}.") from error
    virtual = [
        str(name)
        for name, sql, root, kind in made
        if kind == "table" and not root and not _SPATIAL_INDEX.match(str(sql))
    ]
    endless = sorted(name for name in views if name in read or name.startswith(("gpkg_", "rtree_", "sqlite_")))
    for names, what in ((virtual, "a virtual one"), (endless, "a view"), (computed, "computed in part")):
        if names:
            raise DataError(f"{path}: its table {shortened(', '.join(names))} is {what}. Copy it with ogr2ogr.")


def _layers(file: sqlite3.Connection) -> list[tuple[Any]]:
    found: list[tuple[Any]] = file.execute("select table_name from gpkg_contents limit 10000").fetchall()
    return found


def _check_shapefile(path: Path, declared: int, size: int) -> None:
    if declared > size:
        raise DataError(f"{path} is cut: it has {size:,} of {declared:,} bytes. Get a whole copy.")
    for text in (path.with_suffix(".prj"), path.with_suffix(".cpg")):
        if text.is_file() and text.stat().st_size > _MOST_TEXT_BYTES:
            raise DataError(f"{text} has {text.stat().st_size:,} bytes; at most {_MOST_TEXT_BYTES:,} are read.")
