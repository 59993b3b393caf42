"""Addresses in a list on a server: relative to the file that says them, and never those of files of this computer."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from skystill.errors import DataError, shortened
from skystill.raster.buckets import copy_file
from skystill.raster.opening import is_plain

MOST_FILES = 10_000
"""Files to which a catalogue on a server may link. Each takes some requests."""
_ONE_FILE = (
    "Save the items as one item collection, as pystac-client does: search.item_collection().save_object(FILE), or give "
    "the catalogue from this computer"
)
_ON_SERVER = re.compile(
    r"(?i)((zip|tar|gzip)\+)?(https?|ftp|s3|gs|az|oss)://"
    r"|(/vsi(zip|tar|gzip)/\{?/?)*/?vsi(curl|s3|gs|az|adls|oss|swift)(_streaming)?/(?!file:)"
)


class ServerLinks:
    """Follows the links of a catalogue on a server, whose files are copied one after the other.

    Args:
        folder: the folder for the copies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def named(self, href: str, by: str) -> str:
        """Return the address of the file that a link of the file `by` means.

        Raises:
            DataError: it is not on a server.
        """
        try:
            return server_address(href, by, "link", is_escaped=True)
        except DataError as error:
            raise DataError(f"{error} {_ONE_FILE}.") from error

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Yield the path of a copy of a file.

        Raises:
            DataError: it cannot be read, or there were too many.
        """
        self._count += 1
        if self._count > MOST_FILES:
            raise DataError(
                f"{name} is a link too many: at most {MOST_FILES:,} files on servers are read. {_ONE_FILE}."
            )
        path = self._folder / "copy.json"
        copy_file(name, path)
        yield path
        path.unlink()


def server_address(href: str, by: str, what: str, is_escaped: bool = False) -> str:
    """Return the address of a file that a file on a server names.

    Args:
        href: an address, or a path relative to the file that names it.
        by: address of the file that names it.
        what: what it is, for messages.
        is_escaped: whether a blank may be written as %20.

    Raises:
        DataError: it is not on a server.
    """
    href = unquote(href) if is_escaped and not href.lower().startswith("http") else href
    if not href:
        raise DataError(f"it names no {what}.")
    if is_plain(href) and href.startswith("/"):
        raise DataError(f"its {what} {shortened(href)} is a file of this computer, and {by} is on a server.")
    found = _joined(server_folder(by), href) if is_plain(href) else href
    if not _ON_SERVER.match(found):
        raise DataError(f"its {what} {shortened(href)} is not on a server, as {by} is.")
    return found


def server_folder(name: str) -> str:
    """Return the folder of a file on a server, with a slash at its end."""
    return name.split("?", 1)[0].rsplit("/", 1)[0] + "/"


def _joined(folder: str, relative: str) -> str:
    """Return the address of a file that is named relative to a folder on a server."""
    scheme, colon, rest = folder.rpartition("://")
    return scheme + colon + posixpath.normpath(rest + relative)
