"""Images without masks: whole files, and windows of rasters that are too large to be read at once."""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill.data import Pair, read_image
from skystill.data.image_files import find_image_files, without_repeats
from skystill.digests import file_sha256
from skystill.errors import DataError, first_few
from skystill.progress import Note, OnProgress, ignore_progress
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.opening import VRT_SUFFIX, files_of, open_raster
from skystill.raster.overwriting import source_files
from skystill.raster.picture import is_jpeg, raster_size, read_manner, read_size_and_stretch, read_whole
from skystill.raster.source import gdal_environment

WINDOW = 1024
"""Largest side of a window in pixels. An image that is not larger becomes one window."""
_THUMB = 16
_SAME = 3.0  # mean difference of thumbnails in grey levels: less for a copy saved as JPEG, far more for another place


@dataclass(frozen=True)
class ImageWindow:
    """An image, or a window of a raster, for which the teacher computes logits.

    Args:
        path: the file.
        bounds: top, bottom, left and right in pixels, ends exclusive; None for a whole image with a mask.
    """

    path: Path
    bounds: tuple[int, int, int, int] | None = None

    @property
    def name(self) -> str:
        """Name for messages: the path, and the rows of a window."""
        return str(self.path) if self.bounds is None else f"{self.path} (rows {self.bounds[0]} to {self.bounds[1] - 1})"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if self.bounds is None:
            return raster_size(self.path)
        top, bottom, left, right = self.bounds
        return bottom - top, right - left

    def content(self, spec: InputSpec = RGB) -> str:
        """Return a hash of the bytes of the file, of how it is read, and of the window: 24 hexadecimal digits.

        Files whose bands are read as they are stored have the same hash as before there was one reader for training and
        prediction, so that their cached logits stay. Whole JPEG files have another one: their pixels were Pillow's.

        Args:
            spec: what the network is fed.
        """
        digest = hashlib.sha256(_file_hash(self.path).encode())
        digest.update(repr(self.bounds).encode() if self.bounds else _decoder(self.path))
        digest.update(_manner(self.path, spec).encode())
        return digest.hexdigest()[:24]

    def read(self, spec: InputSpec = RGB) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read the image or the window.

        Args:
            spec: what the network is fed.

        Returns:
            image (H, W, B) in the data type of the spec, and valid (H, W) bool, False where the raster has no data.

        Raises:
            DataError: the file cannot be read by the spec, or is damaged.
        """
        picture = read_whole(self.path, self.bounds, spec)
        return picture.image, all_valid(*picture.image.shape[:2]) if picture.valid is None else picture.valid


def all_valid(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return an (H, W) bool array of True. It is read-only and takes one byte of memory."""
    return np.broadcast_to(np.bool_(True), (height, width))


@lru_cache(maxsize=4096)
def _file_hash(path: Path) -> str:
    if path.suffix.lower() == VRT_SUFFIX:
        with gdal_environment(), open_raster(path) as raster:
            files = [Path(name) for name in sorted(files_of(raster)) if Path(name).is_file()]
        return hashlib.sha256("".join(map(_bytes_hash, files)).encode()).hexdigest()
    return _bytes_hash(path)


def _bytes_hash(path: Path) -> str:
    return file_sha256(path).hex()


@lru_cache(maxsize=4096)
def _manner(path: Path, spec: InputSpec) -> str:
    return read_manner(path, spec)


@lru_cache(maxsize=4096)
def _decoder(path: Path) -> bytes:
    return b"JPEG by GDAL" if is_jpeg(path) else b""


def whole_images(pairs: Sequence[Pair]) -> list[ImageWindow]:
    """Return the whole image of each pair, and the window of each pair of a map."""
    return [ImageWindow(pair.image, pair.bounds) for pair in pairs]


def find_unlabeled(
    sources: Sequence[Path],
    held_out: Sequence[Pair],
    spec: InputSpec = RGB,
    find_rest: Callable[[], list[ImageWindow]] = list,
    maps: Collection[Path] = (),
    trained: Sequence[Pair] = (),
    on_progress: OnProgress = ignore_progress,
) -> list[ImageWindow]:
    """Find every image and raster that some sources name, and cut large ones into windows.

    Args:
        sources: folders, single files and patterns, as in `skystill.data.image_files.find_image_files`.
        held_out: validation and test pairs. Their images must not be among the files, except the raster of a map, of
            which those windows are taken that have no labels and are not held out.
        spec: what the student is fed.
        find_rest: returns these windows, as `skystill.data.map_rest.find_rest`.
        maps: the rasters of the map, if the data is one. Some may be in no part of its split.
        trained: training pairs. If all of them hold bytes, a file of more bits is refused.
        on_progress: called with a `Note` if an image is there twice. It counts once.

    Raises:
        DataError: a source does not exist or holds no images, or some files cannot be opened, lack bands, have more
            bits than the training images, or are copies of validation or test images. The message lists these files.
    """
    named, again = without_repeats(find_image_files(sources))
    if again:
        on_progress(Note(_repeats_note(again)))
    files, own, problems = _without_maps(named, {*maps, *(pair.image for pair in held_out if pair.is_window)})
    image_windows = [window for window in find_rest() if window.path in own] if own else []
    if own and not image_windows:
        problems.append(
            f"{' and '.join(map(str, own))}: all pixels that are not held out have labels. If some are not complete, "
            "draw a layer area around what is"
        )
    known = _Known(held_out if files else (), spec)
    for path in files:
        try:
            size, stretched = read_size_and_stretch(path, spec)
            image_windows.extend(ImageWindow(path, window) for window in _windows(*size))
        except DataError as error:
            problems.append(str(error))
            continue
        if stretched and trained and not _any_stretched(tuple(trained), spec):
            problems.append(
                f"{path} has more than 8 bits per band, and the training images have 8. Write it in bytes, with one "
                "scale for all such images: gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT"
            )
        if twin := known.twin(path, size):
            problems.append(f"{path} is {twin}, on which the student is scored")
    if problems:
        raise DataError(
            f"{', '.join(first_few([str(source) for source in sources], 3))}: {len(problems)} of "
            f"{len(files) + len(own)} file(s) cannot teach:",
            problems,
            "Take them out of the folder, or name the others.",
        )
    return image_windows


@lru_cache(maxsize=1)
def _any_stretched(pairs: tuple[Pair, ...], spec: InputSpec) -> bool:
    return any(read_size_and_stretch(image, spec)[1] for image in {pair.image for pair in pairs})


def _repeats_note(again: Sequence[tuple[Path, Path]]) -> str:
    shown = first_few([f"{path}" if path == first else f"{path} is {first}" for path, first in again], 3)
    return f"{len(again):,} image(s) without labels are there more than once, and count once: {', '.join(shown)}."


def _without_maps(files: Sequence[Path], rasters: set[Path]) -> tuple[list[Path], list[Path], list[str]]:
    """Return the files that are no part of a map, the rasters of maps among the files, and problems.

    Args:
        files: the files.
        rasters: the rasters of maps. A VRT is made of other files, which show the same place.
    """
    of_file = {os.path.realpath(path): path for path in files}
    own, parts, problems = [], set[str](), list[str]()
    for raster in rasters:
        made_of = {os.path.realpath(path) for path in source_files(str(raster))} - {os.path.realpath(raster)}
        if os.path.realpath(raster) in of_file:
            own.append(raster)
        else:
            problems += [f"{of_file[part]} is a part of {raster}; give that" for part in made_of & of_file.keys()]
        parts |= made_of | {os.path.realpath(raster)}
    return [path for real, path in of_file.items() if real not in parts], own, sorted(problems)


def _windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Return windows of nearly equal size that cover the image. No side is longer than `WINDOW`."""
    rows, columns = (np.linspace(0, size, -(-size // WINDOW) + 1).astype(int).tolist() for size in (height, width))
    return [(top, bottom, left, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


class _Known:
    """Images that must not occur again. A copy has the same bytes or, if it was saved again, a similar thumbnail."""

    def __init__(self, pairs: Sequence[Pair], spec: InputSpec) -> None:
        self._spec = spec
        self._by_hash = {_file_hash(pair.image): pair for pair in pairs}
        self._bytes = {pair.image.stat().st_size for pair in pairs}
        self._looks: dict[tuple[int, int], list[tuple[npt.NDArray[np.float64], Pair]]] = {}
        for pair in pairs:
            image = read_image(pair.image, spec, pair.bounds)
            self._looks.setdefault(image.shape[:2], []).append((self._thumbnail(image), pair))

    def twin(self, path: Path, size: tuple[int, int]) -> str | None:
        """Return the path of the known image that a file is a copy of, or None.

        Args:
            path: the file.
            size: its height and width in pixels.
        """
        may_be = path.suffix.lower() == VRT_SUFFIX or path.stat().st_size in self._bytes  # of others, not read whole
        if may_be and (found := self._by_hash.get(_file_hash(path))):
            return str(found.image)
        if size not in self._looks:
            return None
        look = self._thumbnail(ImageWindow(path, (0, size[0], 0, size[1])).read(self._spec)[0])
        return next((str(p.image) for other, p in self._looks[size] if np.abs(look - other).mean() < _SAME), None)

    def _thumbnail(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return an image in grey levels at 16 x 16 pixels. Values are stretched by the spread of their band."""
        if not self._spec.is_colors:
            low, spread = (np.array([[b.mean, b.std] for b in self._spec.bands]).T)[:, None, None]
            image = np.clip(128 + 64 * (image - low) / spread, 0, 255).astype(np.uint8)
        bands = [
            Image.fromarray(band).resize((_THUMB, _THUMB), Image.Resampling.BOX) for band in image.transpose(2, 0, 1)
        ]
        return np.stack([np.asarray(band, np.float64) for band in bands], axis=2)
