"""Named pipes, sockets and devices: one that is named as an image is not opened, because reading it hangs."""

import functools
import os
import stat
import time

from skystill.errors import DataError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_DESCRIBE = (".txt", ".xml", ".dim", ".pvl")
"""Extensions of metadata of satellites, whose names need not begin as that of the raster."""
_SETTLED_NS = 2_000_000_000  # a folder that changed later may change again within the resolution of its clock


def special_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what a path is in words if it, or what it links to, is a named pipe, a socket or a device; else None."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116 - names of GDAL come as text
    except (OSError, ValueError):
        return None  # a file that is missing is reported by what opens it


def special_beside(path: str, others: frozenset[str]) -> str | None:
    """Return a named pipe, a socket or a device in the folder of a raster that GDAL may take for a part of it, or None.

    GDAL looks for many files beside a raster: world files, metadata, statistics, overviews. It does not mind case.

    Args:
        path: the raster.
        others: extensions of files that are rasters themselves, in lower case.
    """
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - for each image
    try:
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116
    except (OSError, ValueError):
        return None
    listed = _specials if time.time_ns() - changed > _SETTLED_NS else _specials.__wrapped__
    stem = os.path.splitext(name)[0].casefold()  # noqa: PTH122
    begins = (f"{stem}.", f"{stem}_", f"{stem}-")
    for other in listed(folder, changed):
        suffix = os.path.splitext(other)[1].lower()  # noqa: PTH122
        if (other.casefold().startswith(begins) and suffix not in others) or suffix in _DESCRIBE:
            return os.path.join(os.path.dirname(path), other)  # noqa: PTH118, PTH120
    return None


@functools.lru_cache(maxsize=64)
def _specials(folder: str, changed: int) -> tuple[str, ...]:  # the time is only part of the key
    """Return the names of all named pipes, sockets and devices in a folder."""
    try:
        with os.scandir(folder) as entries:
            odd = [entry for entry in entries if not entry.is_file(follow_symlinks=False)]
    except OSError:
        return ()
    return tuple(entry.name for entry in odd if special_kind(entry.path))


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a named pipe, a socket or a device. Reading one waits for ever, or never ends.

    Raises:
        DataError: the path is one of these, or links to one.
    """
    if kind := special_kind(path):
        raise DataError(f"{os.fspath(path)} is {kind}, not a file. Write its content to a file, or take it away.")
