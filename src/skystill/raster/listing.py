"""The one way to list image files: their suffixes, hidden files, linked folders, patterns, and the words for masks.

Training, `--unlabeled` and prediction find their files here. The module is in `raster` and not in `data`, because
prediction uses it and should not load what only training needs.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from skystill.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".vrt"})
"""Suffixes of images and masks, in lower case. Files may have them in upper or lower case."""
_IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img"})
_MASK_FOLDERS = frozenset({"masks", "mask", "labels", "label", "annotations", "gt"})
_MASK_NAME = re.compile(r"[_\-. ](masks?|labels?|gt)$")
_IMAGE_NAME = re.compile(r"[_\-. ](images?|img|sat)$")
_MADE_BY_PROGRAMS = frozenset({"__macosx", "@eadir"})
"""Folders of archives made on macOS and of network storage, with thumbnails that are named like the images."""


@dataclass(frozen=True)
class Listing:
    """The image files of a folder, or those that match a pattern.

    Args:
        images: files that are not masks, sorted.
        masks: files that are masks by their folder or name, sorted; see `key_and_role`.
        folders: sub-folders directly below the folder that were not searched. Folders of masks are left out.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    folders: tuple[Path, ...] = ()


def key_and_role(relative: Path) -> tuple[str, bool]:
    """Return the key of a pair, and whether the file is a mask.

    A file is a mask if one of its folders is called mask, label, annotations, gt or similar, or if its name ends in
    _mask, _label or _gt. The key is the path without these words, without the words for images, and without extension.

    Args:
        relative: path of the file below the folder that the user gave. Words above that folder do not count.
    """
    folders = [part for part in relative.parts[:-1] if part.lower() not in _IMAGE_FOLDERS | _MASK_FOLDERS]
    stem = relative.stem
    below_masks = any(part.lower() in _MASK_FOLDERS for part in relative.parts[:-1])
    named_mask = _MASK_NAME.search(stem.lower())
    role_name = named_mask or _IMAGE_NAME.search(stem.lower())
    if role_name:
        stem = stem[: role_name.start()]
    return "/".join([*folders, stem]), below_masks or named_mask is not None


def is_image_file(path: Path) -> bool:
    """Whether the suffix, in upper or lower case, is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path, recursive: bool = True, base: Path | None = None) -> Listing:
    """List the images and the masks of a folder.

    Hidden files and folders (their names begin with a dot) are passed over, and so are the folders `__MACOSX` and
    `@eaDir`. Linked folders are followed, except a link that leads back to a folder above it. A link to a file that is
    gone is listed, and so is a named pipe, a socket or a device, so that reading it fails by name.

    Args:
        folder: the folder to list.
        recursive: also list all folders below it.
        base: folder below which words for masks count; by default `folder`.

    Raises:
        DataError: the folder, or one below it, cannot be opened.
    """
    return divided(_walk(folder, None if recursive else 1), recursive, base or folder)


def divided(entries: Iterable[tuple[Path, bool]], recursive: bool, base: Path) -> Listing:
    """Divide what lies in a folder into images, masks and sub-folders.

    Args:
        entries: each file and folder, and whether it is a folder.
        recursive: whether those in sub-folders are among them.
        base: folder below which words for masks count.
    """
    images: list[Path] = []
    masks: list[Path] = []
    folders: list[Path] = []
    for path, is_folder in entries:
        if is_folder:
            folders.append(path)
        elif is_image_file(path):
            (masks if key_and_role(path.relative_to(base))[1] else images).append(path)
    left = () if recursive else (path for path in folders if path.name.lower() not in _MASK_FOLDERS)
    return Listing(tuple(sorted(images)), tuple(sorted(masks)), tuple(sorted(left)))


def match_images(pattern: str) -> tuple[Listing, Path]:
    """List the files and folders that match a pattern, such as photos/*.jpg or tiles/**/*.tif.

    The pattern means what it means in a shell, with two differences: letters of a suffix match in upper and lower case,
    and a pattern that does not end in a suffix matches image files only. Hidden files, linked folders and masks are
    treated as in `list_images`; words for masks count below the part of the pattern that is not a pattern.

    Args:
        pattern: `*`, `?` and `[...]` stand for parts of one name, `**` for any number of folders.

    Returns:
        The files that match, with the folders that match in `folders`, and the part that is not a pattern.

    Raises:
        DataError: a folder cannot be opened.
    """
    root, parts = _fixed_part(Path(pattern))
    entries = _walk(root, depth_of(parts)) if root.is_dir() else ()
    return matched(entries, root, parts), root


def depth_of(parts: tuple[str, ...]) -> int | None:
    """Return how many levels below its fixed part a pattern reaches, or None for all."""
    return None if "**" in parts else len(parts)


def matched(entries: Iterable[tuple[Path, bool]], root: Path, parts: tuple[str, ...]) -> Listing:
    """Return what matches a pattern, as `match_images`.

    Args:
        entries: each file and folder below the fixed part, and whether it is a folder.
        root: the fixed part of the pattern.
        parts: the other parts.
    """
    suffix = Path(parts[-1]).suffix
    named = bool(suffix) and not glob.has_magic(suffix)
    if named:
        either = re.sub(
            "[a-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", suffix, flags=re.IGNORECASE
        )
        parts = (*parts[:-1], parts[-1].removesuffix(suffix) + either)
    images: list[Path] = []
    masks: list[Path] = []
    folders: list[Path] = []
    for path, is_folder in entries:
        relative = path.relative_to(root)
        if not _matches(relative.parts, parts):
            continue
        if is_folder:
            folders.append(path)
        elif named or is_image_file(path):
            (masks if key_and_role(relative)[1] else images).append(path)
    found = () if "**" in parts else sorted(folders)  # ** reaches the files of the folders by itself
    return Listing(tuple(sorted(images)), tuple(sorted(masks)), tuple(found))


def _fixed_part(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that a pattern begins with, and the other parts. A folder may have brackets in its name."""
    parts = pattern.parts
    root, count = Path(), 0
    while count < len(parts) - 1 and (not glob.has_magic(parts[count]) or (root / parts[count]).exists()):
        root, count = root / parts[count], count + 1
    return root, parts[count:]


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _walk(root: Path, depth: int | None) -> Iterator[tuple[Path, bool]]:
    """Yield every visible file and folder below `root`, and whether it is a folder. The order is not defined.

    Args:
        root: the folder.
        depth: number of levels, 1 for the content of `root` alone; None for all.
    """
    waiting: list[tuple[Path, int, frozenset[tuple[int, int]]]] = [(root, 1, frozenset())]
    while waiting:
        folder, level, above = waiting.pop()
        try:
            state = folder.stat()
            here = (state.st_dev, state.st_ino)
            if here in above:  # a link that leads back to a folder above it
                continue
            with os.scandir(folder) as found:
                entries = [entry for entry in found if not is_passed_over(entry.name)]
        except OSError as error:
            raise DataError(
                f"{folder} cannot be listed: {error.strerror}.", mend="Allow it, or move it away."
            ) from error
        for entry in entries:
            path = Path(entry.path)
            if path.is_dir():
                yield path, True
                if depth is None or level < depth:
                    waiting.append((path, level + 1, above | {here}))
            else:
                yield path, False


def is_passed_over(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or made by programs for themselves."""
    return name.startswith(".") or name.lower() in _MADE_BY_PROGRAMS
