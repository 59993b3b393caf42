"""Buckets of object stores: which names mean them, what lies in a folder there, and copies to and from this computer.

rasterio opens rasters in buckets. It can neither list a folder there nor copy a file that is no raster. GDAL, which
rasterio brings with it, can do both (`skystill.raster.gdal_functions`), so that listing, reading and writing take the
same credentials.
"""

import ctypes
import glob
import json
import os
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from skystill.errors import DataError, SettingsError
from skystill.raster.gdal_functions import with_credentials
from skystill.raster.listing import Listing, depth_of, divided, is_passed_over, matched
from skystill.raster.opening import is_plain, open_raster, suffix_of
from skystill.raster.scratch import scratch_folder
from skystill.raster.servers import PAUSES, UNCACHED, patiently
from skystill.raster.source import gdal_environment

SCHEMES = {"s3://": "/vsis3/", "gs://": "/vsigs/", "az://": "/vsiaz/"}
"""How the name of a bucket begins, and GDAL's own word for it."""
_FAILURE = 3
"""GDAL's number for an error; smaller ones are warnings, such as that it asks again."""
_CUT = "only a part of it came"
_CREDENTIALS = "GDAL takes credentials from the environment, the files of the provider's tools, and roles of machines"


@dataclass(frozen=True)
class Found:
    """Images in a bucket.

    Args:
        root: the folder that was listed, ending in a slash.
        listing: what is in it. Paths are relative to it.
    """

    root: str
    listing: Listing

    def address(self, relative: Path) -> str:
        """Return the name of a file as it is opened: as the user named the bucket."""
        key = relative.as_posix()
        root = vsi_name(self.root) if set("#?") & set(key) else self.root  # in an address they would end the path
        return root + key


def is_bucket(name: str) -> bool:
    """Return whether a name is that of a bucket, or of something in one."""
    return name.startswith((*SCHEMES, *SCHEMES.values()))


def vsi_name(name: str) -> str:
    """Return GDAL's name for an address of a bucket or of a web server. Other names stay as they are."""
    if name.startswith(("https://", "http://")):
        return f"/vsicurl/{name}"
    return next((gdal + name[len(own) :] for own, gdal in SCHEMES.items() if name.startswith(own)), name)


def bucket_address(path: Path) -> str | None:
    """Return the address of a bucket that was read as a path, such as s3:/bucket/a, or None if a path is none."""
    parts = path.parts
    if parts and f"{parts[0]}//" in SCHEMES:
        return f"{parts[0]}//{'/'.join(parts[1:])}"
    return str(path) if is_bucket(str(path)) else None


def fixed_part(name: str) -> str:
    """Return the address of a folder or a pattern in a bucket up to its first part that is a pattern, with a slash."""
    scheme = next(one for one in (*SCHEMES, *SCHEMES.values()) if name.startswith(one))
    parts = PurePosixPath(name.removeprefix(scheme)).parts
    fixed = next((count for count, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return f"{scheme}{'/'.join(parts[:fixed])}/"


def check_writable(folder: str) -> None:
    """Write a small object into a folder of a bucket, and delete it.

    Args:
        folder: address of the folder, with a slash at its end.

    Raises:
        DataError: it cannot be written. The message holds GDAL's reason.
        SettingsError: this build of rasterio does not offer GDAL's functions.
    """
    address = f"{folder}.skystill-{uuid.uuid4().hex}"
    with scratch_folder() as scratch:
        (scratch / "probe").write_bytes(b"skystill")
        copy_file(scratch / "probe", address)
    with gdal_environment():
        with_credentials(address, _remove, vsi_name(address))


def find_in_bucket(name: str, recursive: bool) -> Found | None:
    """List the images of a folder in a bucket, or those that match a pattern. The rules are those of local folders.

    Args:
        name: a folder (with a slash at its end, or without an extension), a pattern, or one object.
        recursive: also list all folders below.

    Returns:
        what was found; None if the name is that of one object.

    Raises:
        DataError: there is no such folder, or it cannot be listed. The message holds GDAL's reason.
        SettingsError: this build of rasterio does not offer GDAL's functions.
    """
    root = fixed_part(name)
    pattern = PurePosixPath(f"{name.rstrip('/')}/".removeprefix(root)).parts
    if root in (f"{scheme}/" for scheme in (*SCHEMES, *SCHEMES.values())):
        raise SettingsError(f"{name} names no bucket; write s3://BUCKET/FOLDER/, or gs:// or az://.")
    if not pattern and not name.endswith("/") and suffix_of(name) and root.count("/") > 3:
        return None
    if not pattern:
        return Found(root, divided(_walk(root, None if recursive else 1), recursive, Path()))
    entries = list(_walk(root, None if recursive else depth_of(pattern)))
    if any(path == Path(*pattern) and not is_folder for path, is_folder in entries):
        return None  # an object whose name has a bracket
    listing = matched(entries, Path(), pattern)
    inside = [entry for entry in entries if recursive and set(listing.folders) & set(entry[0].parents)]
    more = divided(inside, True, Path())
    images = tuple(sorted({*listing.images, *more.images}))
    return Found(root, Listing(images, tuple(sorted({*listing.masks, *more.masks})), listing.folders))


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file to a bucket, or from one. In a bucket it appears whole or not at all.

    Args:
        source: a path, or an address.
        target: a path, or an address.

    Raises:
        DataError: it cannot be read or written. The message holds GDAL's reason.
        SettingsError: this build of rasterio does not offer GDAL's functions.
    """
    if is_plain(str(source)) and not Path(source).is_file():  # GDAL would say that it was copied
        raise DataError(f"{source} cannot be copied to {target}: there is no such file.")
    names = [vsi_name(str(name)) for name in (source, target)]
    with gdal_environment(), rasterio.Env(CPL_VSIL_CURL_NON_CACHED=UNCACHED):
        owner = str(source) if is_bucket(str(source)) else str(target)
        reason = patiently(lambda: with_credentials(owner, _copy, *names), lambda reason: reason == _CUT)
    if reason is not None:
        raise DataError(f"{source} cannot be copied to {target}: {reason}. {_CREDENTIALS}.")


def _walk(root: str, depth: int | None) -> Iterator[tuple[Path, bool]]:
    """Yield every visible file and folder below a folder of a bucket, by its path there, and whether it is a folder.

    Args:
        root: the folder.
        depth: 1 for the content of the folder alone. Otherwise everything below is listed, a thousand names with each
            request; level by level, each sub-folder would take one.

    Raises:
        DataError: there is nothing.
    """
    with gdal_environment():
        entries = _whole_list(root, 0 if depth == 1 else -1)
    folders: set[Path] = set()
    for name, is_folder in entries:
        path = Path(name)
        if any(is_passed_over(part) for part in path.parts):
            continue
        own = {path, *path.parents[:-1]} if is_folder else set(path.parents[:-1])  # not all of them have an entry
        yield from ((folder, True) for folder in sorted(own - folders))
        folders |= own
        if not is_folder:
            yield path, False


def _whole_list(root: str, depth: int) -> list[tuple[str, bool]]:
    """Return what lies below a folder of a bucket. Where the list breaks off, the server is asked again.

    Raises:
        DataError: there is nothing, or the list breaks off each time.
    """
    folder = vsi_name(root).rstrip("/")
    entries, reason = patiently(
        lambda: with_credentials(root, _list, folder, depth), lambda found: bool(found[0]) and found[1] is not None
    )
    if not entries:
        raise DataError(f"{root}: nothing can be listed there: {reason or _reason_of(root)}. {_CREDENTIALS}.")
    if reason is not None:
        raise DataError(
            f"{root}: the list of what is there breaks off after {len(entries):,} names, asked {1 + len(PAUSES)} "
            f"times ({reason}). Run the same command later."
        )
    return list(entries)


def _reason_of(root: str) -> str:
    """Return what GDAL says when it opens something in a folder that cannot be listed."""
    try:
        open_raster(f"{root}skystill.tif").close()
    except RasterioError as error:
        reason = str(error).rstrip(".")
        if "key does not exist" not in reason and "does not exist in the file system" not in reason:
            return reason
    return "there is no such folder, or it is empty"


def _reason(library: Any) -> str:  # noqa: ANN401
    said = library.VSIGetLastErrorMsg() or library.CPLGetLastErrorMsg() or b""
    return str(said.decode(errors="backslashreplace")).rstrip(".")


def _list(library: Any, folder: str, depth: int) -> tuple[list[tuple[str, bool]], str | None]:  # noqa: ANN401
    """Return what lies below a folder, names of folders without a slash, and the reason if this is not all.

    GDAL gives the names of a page, which are a thousand, one by one, and then asks for the next page. If that does not
    come, it ends without an error. A page that was asked for and gave no name is therefore taken for one that failed.
    """
    with rasterio.Env(CPL_VSIL_NETWORK_STATS_ENABLED="YES"):
        library.VSINetworkStatsReset()
        opened = library.VSIOpenDir(folder.encode(), depth, None)
        if not opened:
            return [], _reason(library)
        found, asked = [], _requests(library)
        try:
            while entry := library.VSIGetNextDirEntry(opened):
                name = entry.contents.name.decode(errors="surrogateescape")
                found.append((name.rstrip("/"), stat.S_ISDIR(entry.contents.mode) or name.endswith("/")))
                asked = _requests(library)
        finally:
            library.VSICloseDir(opened)
        if _requests(library) > asked:
            return found, _reason(library) or "the next names did not come"
    library.VSINetworkStatsReset()  # they are no longer counted
    return found, _reason(library) if library.CPLGetLastErrorType() >= _FAILURE else None


def _requests(library: Any) -> int:  # noqa: ANN401
    """Return how often GDAL has asked a server for content."""
    text = library.VSINetworkStatsGetAsSerializedJSON(None)
    try:
        counted = json.loads(ctypes.string_at(text))["methods"]
    finally:
        library.VSIFree(text)
    return int(counted.get("GET", {}).get("count", 0))


def _remove(library: Any, name: str) -> None:  # noqa: ANN401
    library.VSIUnlink(name.encode())


def _copy(library: Any, source: str, target: str) -> str | None:  # noqa: ANN401
    """Copy a file, and return GDAL's reason if it failed. GDAL takes an answer that was cut for the end of the file."""
    if library.CPLCopyFile(target.encode(), source.encode()):
        return _reason(library) or "GDAL gives no reason"
    if not is_plain(source) and is_plain(target) and Path(target).stat().st_size != _size(library, source):
        return _CUT
    return None


def _size(library: Any, name: str) -> int:  # noqa: ANN401
    """Return the size in bytes that a server says that a file has, -1 if it does not say so any more."""
    file = library.VSIFOpenL(name.encode(), b"rb")
    if not file:
        return -1
    try:
        library.VSIFSeekL(file, 0, os.SEEK_END)
        return int(library.VSIFTellL(file))
    finally:
        library.VSIFCloseL(file)
