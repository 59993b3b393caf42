"""Read one image or mask as uint8. Every error names the file."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill.classes import VOID, ClassMap, Labels, hex_color, labels_from_colors
from skystill.data.pairs import Pair
from skystill.errors import DataError

_GEOTIFF = frozenset({".tif", ".tiff"})


@dataclass(frozen=True)
class MaskReading:
    """A mask that was read as labels.

    Args:
        labels: (H, W) uint8, 255 = void.
        unknown: number of pixels of each colour ("#6EC1E4") or label number ("label 9") that belongs to no class.
            These pixels are void in `labels`.
    """

    labels: Labels
    unknown: dict[str, int]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as RGB. An alpha channel is dropped, and a grey image is repeated over three channels.

    Args:
        path: the image file.

    Returns:
        (H, W, 3) uint8 RGB, 0 to 255.

    Raises:
        DataError: the file is missing, damaged or not an image, or a TIFF has two bands or is not 8 bits per band.
    """
    if path.suffix.lower() in _GEOTIFF:
        bands, _ = _read_tiff(path)
        if bands.dtype != np.uint8:
            raise DataError(f"{path}: {bands.dtype} pixels; convert the image to 8 bits a band.")
        if bands.shape[0] == 2:
            raise DataError(f"{path}: two bands; an image has three (RGB), or one (grey).")
        rgb = bands[:3] if bands.shape[0] >= 3 else np.repeat(bands[:1], 3, axis=0)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))
    return np.asarray(_open_picture(path).convert("RGB"))


def read_labels(path: Path, classes: ClassMap) -> MaskReading:
    """Read a mask as labels.

    The colours of an RGB mask are looked up in `classes`. A mask with one band holds label numbers, where 255 is void.
    A palette mask is read by its colours. If none of them is a colour of a class or of void, or if the classes have no
    colours (`classes.indexed`), its indices are the labels.

    Args:
        path: the mask file.
        classes: the classes with their colours.

    Raises:
        DataError: the file is missing, damaged, or not a mask.
    """
    if path.suffix.lower() in _GEOTIFF:
        bands, colormap = _read_tiff(path)
        if bands.shape[0] >= 3:
            return _from_colors(np.ascontiguousarray(bands[:3].transpose(1, 2, 0).astype(np.uint8)), classes)
        index = bands[0]
        picture = None if colormap is None else colormap[index.astype(np.uint8)]
    else:
        opened = _open_picture(path)
        if opened.mode not in ("P", "L", "1", "I", "I;16"):
            return _from_colors(np.asarray(opened.convert("RGB")), classes)
        index = np.asarray(opened).astype(np.int64)
        picture = np.asarray(opened.convert("RGB")) if opened.mode == "P" else None
    if picture is not None and not classes.indexed:
        by_color = _from_colors(picture, classes)
        if sum(by_color.unknown.values()) < by_color.labels.size:
            return by_color
    return _from_index(index, classes)


def read_pairs(pairs: Iterable[Pair], classes: ClassMap) -> Iterator[tuple[str, npt.NDArray[np.uint8], Labels]]:
    """Read images and masks, one pair at a time.

    Args:
        pairs: what to read.
        classes: classes with which the masks are read.

    Yields:
        key, image (H, W, 3) uint8 RGB and labels (H, W) uint8 of each pair.

    Raises:
        DataError: an image or a mask cannot be read.
    """
    for pair in pairs:
        yield pair.key, read_image(pair.image), read_labels(pair.mask, classes).labels


def _from_colors(picture: npt.NDArray[np.uint8], classes: ClassMap) -> MaskReading:
    labels, unknown = labels_from_colors(picture, classes)
    return MaskReading(labels, {hex_color(color): count for color, count in unknown.items()})


def _from_index(index: npt.NDArray[np.generic], classes: ClassMap) -> MaskReading:
    values, counts = np.unique(index, return_counts=True)
    unknown = {
        f"label {value}": int(count)
        for value, count in zip(values.tolist(), counts, strict=True)
        if value != VOID and not 0 <= value < len(classes)
    }
    labels = np.where((index >= 0) & (index < len(classes)), index, VOID).astype(np.uint8)  # type: ignore[operator]
    return MaskReading(labels, unknown)


def _open_picture(path: Path) -> Image.Image:
    """Open an image and decode all of it: a truncated file must fail here and not in the middle of training."""
    try:
        with warnings.catch_warnings():
            # Aerial images are large. At twice the number of pixels of this warning, Pillow still raises an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({error}); replace the file or take the pair out."
        ) from error
    return picture


def _read_tiff(path: Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.uint8] | None]:
    """Return the bands (B, H, W), and the colour table (256, 3) uint8, or None if the first band has none."""
    import rasterio  # takes 0.4 s, so it is imported only for TIFFs
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a TIFF may have no position
            with rasterio.open(path) as source:
                bands = source.read()
                try:
                    table = source.colormap(1)
                except ValueError:
                    return bands, None
    except RasterioError as error:
        raise DataError(
            f"{path}: cannot be read as a TIFF ({error}); replace the file or take the pair out."
        ) from error
    colormap = np.zeros((256, 3), np.uint8)
    for index, color in table.items():
        if index < 256:
            colormap[index] = color[:3]
    return bands, colormap
