"""Names of GDAL and of rasterio for files in archives and parts of files: which local file they mean.

Names for a layer of a file, such as GTIFF_DIR:1:a.tif, are not among them: no reader of rasters takes them.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rasterio._path import _parse_path, _vsi_path  # how rasterio itself reads zip:// and file://

from skystill.errors import SettingsError
from skystill.raster.opening import is_remote

_WRAPPER = re.compile(
    r"/?vsi(?:subfile/[^,/]*,|cached\?(?:[^&]*&)*?file=|(?!curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs|rsync)\w+/)"
)


@dataclass(frozen=True)
class NameParts:
    """A name of GDAL that is no plain path.

    Args:
        before: what stands before the path, such as /vsizip/.
        path: the path, which goes on into the archive if the name has no braces.
        after: what stands behind it.
    """

    before: str
    path: str
    after: str


def parts_of(name: str) -> NameParts:
    """Split a name of GDAL. Of a plain path, and of a name of a file on a server, `before` is empty.

    The path of a file in an archive on a server is GDAL's name for a file on that server.
    """
    if os.path.lexists(name):
        return NameParts("", name, "")
    name = str(_vsi_path(_parse_path(name)))
    start, wrapped = 0, _WRAPPER.match(name) if name.startswith("/vsi") else None
    while wrapped:
        start = wrapped.end()
        start += name.startswith("{", start)
        wrapped = _WRAPPER.match(name, start)
    if start:
        end = "}" if name[start - 1] == "{" else "&" if name[start - 1] == "=" else None
        path = name[start:].split(end, 1)[0]
        return NameParts(name[:start], path, name[start + len(path) :])
    return NameParts("", name, "")


def absolute_name(name: str) -> str:
    """Return a name that means the same file in every current folder. Names of files on servers stay as they are.

    Raises:
        SettingsError: it is a name of GDAL in which no path can be found.
    """
    if is_remote(name):
        return name
    found = parts_of(name)
    if not found.before and "://" in found.path:  # vrt://a.tif
        raise SettingsError(
            f"{name} is a name of GDAL that workers, which have other current folders, may take for another file. Give "
            "the path of the file, a URL, or a file in an archive, such as /vsizip/data.zip/a.tif."
        )
    return found.before + str(Path(found.path).absolute()) + found.after


def local_file_of(name: str) -> str | None:
    """Return the path of a local file, or of the local archive that holds it; None for other names of GDAL."""
    if is_remote(name):
        return None
    found = parts_of(name)
    if not found.before:
        return None if "://" in found.path else found.path
    # A Path has made one of the two slashes before an absolute name.
    places = [one for path in (Path(found.path), Path("/", found.path)) for one in (path, *path.parents)]
    return next((str(path.absolute()) for path in places if path.is_file()), None)
