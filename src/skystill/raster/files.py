"""Named pipes, sockets and devices: one that is named as an image is not opened, because reading it hangs."""

import os
import stat

from skystill.errors import DataError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what a path is in words if it, or what it links to, is a named pipe, a socket or a device; else None."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116 - names of GDAL come as text
    except (OSError, ValueError):
        return None  # a file that is missing is reported by what opens it


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a named pipe, a socket or a device. Reading one waits for ever, or never ends.

    Raises:
        DataError: the path is one of these, or links to one.
    """
    if kind := special_kind(path):
        raise DataError(f"{os.fspath(path)} is {kind}, not a file. Write its content to a file, or take it away.")
