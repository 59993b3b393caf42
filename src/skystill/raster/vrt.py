"""What a VRT may name: local files of the usual kinds. It is read here before GDAL opens it.

GDAL opens the sources of a VRT by their content, with every driver that it has. Each of them is therefore opened first
with the drivers for its name, as if the user had named it.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from skystill.raster.files import special_kind
from skystill.raster.grid_files import path_in_crs
from skystill.raster.opening import RasterRefused, check_named, is_plain, is_remote

_MOST_BYTES = 256 * 2**20
_MOST_LEVELS = 20  # of VRTs that name VRTs; the time of GDAL grows with the square
_MOST_READS = 2**19  # of files that GDAL opens for one read of all pixels; each takes about 35 microseconds
_FILE_KEYS = frozenset({"sourcefilename", "sourcedataset", "x_dataset", "y_dataset", "rpc_dem", "overview_file"})
"""Names of elements, attributes, metadata and options that hold a file name, in lower case: GDAL does not mind case."""
_SUBCLASSES = frozenset(
    {
        "vrtwarpeddataset", "vrtpansharpeneddataset", "vrtsourcedrasterband", "vrtderivedrasterband",
        "vrtwarpedrasterband", "vrtpansharpenedrasterband",
    }
)  # fmt: skip
"""Kinds of VRTs and of their bands that are opened. Raw bands show the bytes of any file as pixels."""
_SPECIAL = re.compile(r"^\s*[<{]|^[A-Za-z][\w+.-]+:|^/vsi")  # a description, a name with a prefix, GDAL's own names


@dataclass(frozen=True)
class _Item:
    """An element or attribute of a VRT: its name and text, and whether its file lies relative to the VRT."""

    key: str
    text: str
    relative: bool = False


def check_vrt(name: str) -> None:
    """Check a local VRT, and all files that it is made of. Files that do not exist are left to the reader.

    Args:
        name: path of the VRT.

    Raises:
        RasterRefused: it is no VRT, or holds raw bands, code, or the name of a file that cannot be checked.
    """
    if not is_plain(name):
        raise RasterRefused(
            f"{name} is a VRT inside an archive or in memory. Unpack it: only then its files are checked."
        )
    _check_vrt(name, {}, 1)


def check_remote_vrt(name: str, text: str) -> None:
    """Check a VRT on a server, which the user named. It may name files on servers, and no file of this computer.

    Args:
        name: its name.
        text: its content, as GDAL has read it.

    Raises:
        RasterRefused: it holds raw bands, code, or the name of a local file.
    """
    for item in _items(name, text.encode()):
        _check_kind(name, item)
        if item.key not in _FILE_KEYS:
            continue
        source = item.text
        if item.relative and not is_remote(source):
            source = f"{name.split('?', 1)[0].rsplit('/', 1)[0]}/{source}"
        if not is_remote(source):
            raise RasterRefused(f"{name} is on a server and names a file of this computer, {source}.")
        check_named(source, name)


def _check_vrt(name: str, reads: dict[str, int], level: int) -> int:
    """Check a VRT and the VRTs in it, and return how many files GDAL reads for it.

    Args:
        name: the VRT.
        reads: that number for each VRT that was checked already, by its real path.
        level: 1 for the VRT that the user named, 2 for one that it names, and so on.
    """
    real = os.path.realpath(name)
    if real in reads:
        return reads[real]
    reads[real] = 0  # one that names itself; GDAL says so when it reads it
    content = _content(name)
    if content is None:
        return 0
    if level > _MOST_LEVELS:
        raise RasterRefused(f"{name} is a VRT inside {level - 1} others; at most {_MOST_LEVELS} levels are read.")
    total = 0
    for item in _items(name, content):
        _check_kind(name, item)
        if item.key in _FILE_KEYS:
            total += _check_source(name, real, item, reads, level)
        if total > _MOST_READS:
            raise RasterRefused(
                f"{name} names more than {_MOST_READS:,} files, counted with those of the VRTs that it names. Write "
                "its pixels into one file: gdal_translate IN OUT.tif."
            )
    reads[real] = total
    return total


def _check_source(name: str, real: str, item: _Item, reads: dict[str, int], level: int) -> int:
    if _SPECIAL.match(item.text):
        what = "a file on a server" if is_remote(item.text) else "no plain file"
        raise RasterRefused(
            f"{name} names {item.text[:200]}, which is {what}. A VRT may name files of this computer only: "
            "copy the pixels first with gdal_translate IN OUT.tif."
        )
    source = str(Path(real).parent / item.text) if item.relative else item.text
    if source.lower().endswith(".vrt"):
        return 1 + (_check_vrt(source, reads, level + 1) if Path(source).exists() else 0)
    if Path(source).exists():
        check_named(source, name)
    return 1


def _content(name: str) -> bytes | None:
    """Return the content of a local VRT, or None if there is no such file: opening it says so."""
    path = Path(name)
    if kind := special_kind(name):
        raise RasterRefused(f"{name} is {kind}, not a file.")
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_BYTES:
        raise RasterRefused(
            f"{name} has {path.stat().st_size:,} bytes; a VRT of more than {_MOST_BYTES:,} is not read."
        )
    return path.read_bytes()


def _check_kind(name: str, item: _Item) -> None:
    if item.key not in _FILE_KEYS and (grid := path_in_crs(item.text)):
        raise RasterRefused(
            f"{name} holds a CRS with the grid file {grid[:200]}, which is a path. Give it another CRS."
        )
    if item.key == "subclass" and item.text.lower() not in _SUBCLASSES:
        more = ", which shows the bytes of any file as pixels" if "raw" in item.text.lower() else ""
        raise RasterRefused(
            f"{name} holds a {item.text[:100]}{more}. Copy the pixels first: gdal_translate IN OUT.tif."
        )
    if item.key == "pixelfunctioncode" or (item.key == "pixelfunctionlanguage" and item.text.lower() == "python"):
        raise RasterRefused(f"{name} holds code that would be run. Copy the pixels first: gdal_translate IN OUT.tif.")


def _items(name: str, content: bytes) -> Iterator[_Item]:
    """Yield every element and attribute of a VRT, so that GDAL's lenient parser cannot read another name than this one.

    GDAL takes attributes and elements for the same, does not mind upper case, and stops at a comment within a text.
    """
    if b"<!" in content.replace(b"<!--", b""):
        raise RasterRefused(f"{name} declares a document type, entities or CDATA; a VRT has none.")
    builder = ElementTree.TreeBuilder(insert_comments=True, insert_pis=True)
    try:
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=builder, encoding="utf-8"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise RasterRefused(f"{name} is not well-formed XML ({error}).") from error
    for element in root.iter():
        if not isinstance(element.tag, str):  # a comment
            continue
        inside = [(key.lower(), value) for key, value in element.attrib.items()]
        text, key, parts = element.text or "", element.tag.lower(), dict(inside)
        named = parts.get("key", parts.get("name", "")).lower()
        if key in _FILE_KEYS or named in _FILE_KEYS:
            if len(element) or len(parts) < len(inside) or text != text.strip():
                raise RasterRefused(f"{name}: {element.tag} must hold a file name, and nothing else.")
            yield _Item(named if named in _FILE_KEYS else key, text, _is_true(parts.get("relativetovrt", "0")))
        else:
            yield _Item(key, text.strip())
        for attribute, value in inside:
            if attribute in _FILE_KEYS:
                raise RasterRefused(f"{name}: {attribute} is an attribute; a VRT of GDAL has an element for it.")
            yield _Item(attribute, value.strip())


def _is_true(text: str) -> bool:
    """Read a number as C's atoi does."""
    found = re.match(r"\s*[+-]?\d+", text)
    return found is not None and int(found[0]) != 0
