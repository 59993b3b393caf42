"""The files that `--unlabeled` and `--images` name: folders, single images and patterns, each file once."""

import contextlib
import glob
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from skystill.digests import file_sha256
from skystill.errors import DataError, shortened
from skystill.raster.listing import IMAGE_SUFFIXES, is_image_file, list_images, match_images
from skystill.raster.opening import VRT_SUFFIX

_HEAD = 2**16  # bytes that are compared before two files of the same size are read whole


def find_image_files(sources: Sequence[Path]) -> list[list[Path]]:
    """Return the image files that each of some sources names.

    Args:
        sources: folders, which are searched with all folders below them, single files, and patterns such as
            photos/*.tif, by the rules of `skystill.raster.listing`. Masks in folders are skipped.

    Raises:
        DataError: there is no such file or folder, or it holds no images.
    """
    found = []
    for source in sources:
        try:
            found.append(_files_of(source))
        except OSError as error:  # a folder that may not be entered, or a name that is too long
            raise DataError(f"{shortened(str(source))} cannot be opened: {error.strerror}.") from error
    return found


def _files_of(source: Path) -> list[Path]:
    if source.is_dir():
        files = list(list_images(source).images)
    elif source.is_file() and is_image_file(source):
        return [source]
    elif glob.has_magic(str(source)) and not source.exists():
        matched, root = match_images(str(source))
        listings = [matched, *(list_images(folder, base=root) for folder in matched.folders)]
        files = [path for listing in listings for path in listing.images]
    else:
        raise DataError(
            f"{source} is not a folder, an image ({', '.join(sorted(IMAGE_SUFFIXES))}) or a pattern of images; give "
            "one of these."
        )
    if not files:
        raise DataError(f"{source} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return files


def without_repeats(of_sources: Sequence[Sequence[Path]]) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """Return each image once, and the files that repeat one: the same file, a link to it, or a copy in another source.

    Copies are files of the same bytes. In one source they stay, and so do VRTs, which may be made of different files.

    Args:
        of_sources: the files of each source.

    Returns:
        The first file of each image, in their order; and each other file with the first one that it repeats.
    """
    source_of: dict[Path, int] = {}
    first_of: dict[str, Path] = {}
    again: list[tuple[Path, Path]] = []
    for number, files in enumerate(of_sources):
        for path in files:
            first = first_of.setdefault(os.path.realpath(path), path)
            if path in source_of or first != path:
                again.append((path, first))
            source_of.setdefault(path, number)
    found = list(first_of.values())
    groups = same_bytes(found) if len(of_sources) > 1 else []
    copies = {path: group[0] for group in groups for path in group if source_of[path] != source_of[group[0]]}
    return [path for path in found if path not in copies], [*again, *copies.items()]


def same_bytes(files: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files with the same bytes. VRTs are in none: they may be made of different files."""
    groups = [[path for path in files if path.suffix.lower() != VRT_SUFFIX]]
    for key in (_size, _head, _digest):  # most files differ in their size, and nearly all others in their first bytes
        groups = [group for one in groups for group in _alike(one, key)]
    return groups


def _alike(files: Iterable[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """Return the groups of at least two files with the same key. Files that cannot be read are in none."""
    groups = defaultdict[Hashable, list[Path]](list)
    for path in files:
        with contextlib.suppress(OSError):  # whoever reads the image names it
            groups[key(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _digest(path: Path) -> str:
    return file_sha256(path).hex()
