"""Read one image or mask as uint8, with an error that names the file for everything that can be wrong with it."""

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
    """A mask as labels.

    Args:
        labels: (H, W) uint8, 255 = void.
        unknown: colours ("#6EC1E4") or label numbers ("label 9") that no class has, with pixel counts; they are
            void in `labels`.
    """

    labels: Labels
    unknown: dict[str, int]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB. Alpha is dropped, grey is repeated.

    Raises:
        DataError: the file is missing, damaged, not an image, or not 8 bits a channel.
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

    Colours are looked up in `classes`. A one-band mask holds label numbers, 255 = void. A palette mask is taken by its
    colours, unless none of them belongs to a class: then its indices are the labels.

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
    """Key, image and labels of each pair, one at a time; errors as `read_image` and `read_labels`."""
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
    """Open and decode whole: a truncated file must fail here and not in the middle of training."""
    try:
        with warnings.catch_warnings():
            # Aerial pictures are large; Pillow still refuses twice this many pixels (decompression bombs).
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
    """Bands (B, H, W), and the colour table (256, 3) uint8 where the first band has one."""
    import rasterio  # 0.4 s; only people with GeoTIFFs wait for it
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain TIFF is welcome
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
