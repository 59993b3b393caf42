"""Checks of a file of weights before its library opens it: its size and, of a zip archive, what it unpacks to."""

import zipfile
from pathlib import Path, PurePosixPath

from skystill.errors import CheckpointError

LARGEST_FILE = 16 * 2**30
"""Largest file of weights in bytes that is opened, and the most that the members of an archive may unpack to."""
_FREE, _RATIO = 256 * 2**20, 4
"""An archive may unpack to this many bytes in any case, otherwise to this multiple of its size: weights pack badly."""
_MOST_MEMBERS = 100_000


def check_archive(path: Path) -> None:
    """Check the size of a file and, if it is a zip archive, its table of contents. Nothing is unpacked.

    Two members of one name are refused, because programs differ in which of the two they read: what was checked may not
    be what is loaded.

    Args:
        path: the file. One that is no archive passes.

    Raises:
        CheckpointError: the file is larger than `LARGEST_FILE`, its members unpack to more than it allows, two have one
            name, or one has a name that leads out of the archive.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise CheckpointError(f"{path} has {size:,} bytes; files up to {LARGEST_FILE:,} are opened.")
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: its table of contents cannot be read ({error}).") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > LARGEST_FILE or unpacked > max(_FREE, _RATIO * size) or len(members) > _MOST_MEMBERS:
        raise CheckpointError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,} in {len(members):,} files: a "
            f"decompression bomb. An archive may unpack to {_RATIO} times its size, or to {_FREE:,} bytes, in "
            f"{_MOST_MEMBERS:,} files."
        )
    known: set[str] = set()
    for member in members:
        name = member.orig_filename.replace("\\", "/")
        if name.split("\0")[0].lower() in known:
            raise CheckpointError(f"{path} holds two files of the name {name!r}; save it again.")
        if "\0" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise CheckpointError(f"{path} holds a file of the name {name!r}, which leads out of it.")
        known.add(name.lower())
