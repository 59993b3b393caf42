"""Read one mask as labels, by its colours or by its numbers. Every error names the file."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Color, Labels, hex_color
from skystill.data.mask_files import Index, MaskPixels, Picture, Valid, read_mask
from skystill.data.pairs import Pair
from skystill.errors import DataError

_JPEG_GAP = 32  # numbers that are closer than this can be turned into each other by JPEG


@dataclass(frozen=True)
class MaskReading:
    """A mask that was read as labels.

    Args:
        labels: (H, W) uint8, 255 = void.
        unknown: number of pixels of each colour ("#6EC1E4") or label number ("label 9") that belongs to no class.
            These pixels are void in `labels`.
        nodata: number of pixels that are void because the raster has no data there.
        jpeg: whether the file is compressed as JPEG, which changes colours and numbers.
    """

    labels: Labels
    unknown: dict[str, int]
    nodata: int = 0
    jpeg: bool = False


def read_labels(path: Path, classes: ClassMap) -> MaskReading:
    """Read a mask as labels.

    - Three bands hold colours. If none of them belongs to a class or to void, or if the classes say that masks hold
      numbers (`classes.indexed`), and if all of them are greys, they hold numbers.
    - One band holds numbers. If the classes have no values, and all their colours are greys, it holds grey colours.
    - One band with a colour table holds colours. If none of them belongs to a class or to void, or if the classes say
      that masks hold numbers, it holds numbers.

    Nodata of a raster is void. Transparency is not looked at: a transparent pixel has the class of its colour.

    Args:
        path: the mask file.
        classes: the classes with their colours and values.

    Raises:
        DataError: the file is missing, damaged, or not a mask.
    """
    mask = read_mask(path)
    has_numbers = bool(classes.values) or classes.indexed
    index = mask.index
    if index is None and has_numbers and mask.is_grey:
        index = mask.colors[..., 0]
    if index is None:
        return _from_colors(mask, classes)
    if mask.index is not None and not mask.has_palette:
        by_color = classes.grey and not has_numbers and mask.has_colors
        return _from_colors(mask, classes) if by_color else _from_index(index, mask, classes)
    if classes.indexed:
        return _from_index(index, mask, classes)
    reading = _from_colors(mask, classes)
    if reading.unknown and sum(reading.unknown.values()) == reading.labels.size - reading.nodata:
        return _from_index(index, mask, classes)
    if classes.values and not reading.unknown and mask.has_palette:
        _check_agreement(path, reading, _from_index(index, mask, classes), classes)
    return reading


def read_pair_labels(pair: Pair, classes: ClassMap, size: tuple[int, int]) -> MaskReading:
    """Read the mask of a pair as labels of the size of its image.

    Args:
        pair: the pair. If `pair.fit_mask` is set, a mask of another size but the same shape is fitted to the image:
            each pixel of the image takes the label of the nearest pixel of the mask.
        classes: the classes with their colours and values.
        size: height and width of the image in pixels.

    Raises:
        DataError: the mask cannot be read, or has another size than the image and is not fitted.
    """
    reading = read_labels(pair.mask, classes)
    height, width = reading.labels.shape
    if (height, width) == size:
        return reading
    if not pair.fit_mask or not is_same_shape((height, width), size):
        raise DataError(f"{pair.mask}: {width}x{height} pixels; its image {pair.image.name} has {size[1]}x{size[0]}.")
    return replace(reading, labels=fit_labels(reading.labels, size))


def is_same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes (height, width) have the same shape: equal up to a factor and a pixel of rounding."""
    small, large = sorted((one, other), key=lambda size: size[0] * size[1])
    factors = small[0] / large[0], small[1] / large[1]
    # A pixel of the smaller is lost in rounding. That is much of a tiny mask, so that it must also be little of the
    # whole.
    return abs(factors[0] - factors[1]) * min(large) <= 1 and max(factors) / min(factors) < 1.02


def fit_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """Give labels another size. Each new pixel takes the label at its centre, so that no label is mixed.

    Args:
        labels: (H, W) uint8.
        size: height and width of the result.
    """
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(labels.shape, size, strict=True))
    return np.ascontiguousarray(labels[np.ix_(rows, columns)])


def _from_colors(mask: MaskPixels, classes: ClassMap) -> MaskReading:
    labels, unknown = labels_from_colors(mask.picture, classes, mask.valid)
    return _reading(labels, {hex_color(color): count for color, count in unknown.items()}, mask)


def _from_index(index: Index, mask: MaskPixels, classes: ClassMap) -> MaskReading:
    values, counts, places = _count_values(index, mask.valid)
    label_of = classes.label_of_value
    if mask.jpeg and min(np.diff(sorted(label_of)).tolist(), default=256) < _JPEG_GAP and np.count_nonzero(counts) > 1:
        label_of = {}  # JPEG turns such numbers into each other, and nobody sees it
    unknown = {
        f"label {value}": count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if count and value not in label_of
    }
    labels = np.array([label_of.get(value, VOID) for value in values.tolist()], np.uint8)[places]
    return _reading(labels, unknown, mask)


def _reading(labels: Labels, unknown: dict[str, int], mask: MaskPixels) -> MaskReading:
    if mask.valid is None:
        return MaskReading(labels, unknown, 0, mask.jpeg)
    labels[~mask.valid] = VOID
    return MaskReading(labels, unknown, int((~mask.valid).sum()), mask.jpeg)


def _check_agreement(path: Path, by_color: MaskReading, by_index: MaskReading, classes: ClassMap) -> None:
    """Check that the numbers of a palette mask do not say something else than its colours, just as well."""
    if not by_index.unknown and (by_index.labels != by_color.labels).any():
        raise DataError(
            f"{path}: its colours and its numbers are both those of classes, and do not agree. Take either color "
            f"or value out of {classes.source}."
        )


def _count_values(index: Index, valid: Valid | None = None) -> tuple[Index, npt.NDArray[np.int64], Index]:
    """Return the values of an array, how many valid pixels each has, and where in the values each pixel is."""
    if index.dtype in (np.uint8, np.uint16):  # a table is much faster than to sort
        values: Index = np.arange(np.iinfo(index.dtype).max + 1)
        places: Index = index
    else:
        values, places = np.unique(index, return_inverse=True)
    seen = places.ravel() if valid is None else places[valid]
    return values, np.bincount(seen, minlength=len(values)), places


def pack_colors(picture: Picture) -> npt.NDArray[np.uint32]:
    """Convert (H, W, 3) uint8 RGB to (H, W) uint32, one number per colour: red * 2^16 + green * 2^8 + blue."""
    wide = picture.astype(np.uint32)
    return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2])


def labels_from_colors(
    picture: Picture, classes: ClassMap, valid: Valid | None = None
) -> tuple[Labels, dict[Color, int]]:
    """Convert a colour mask to labels.

    Args:
        picture: (H, W, 3) uint8 RGB, the mask.
        classes: the classes with their colours.
        valid: (H, W) bool, False for pixels that are void whatever their colour is; None if there are none.

    Returns:
        The labels (H, W) uint8, 255 where the colour is void or unknown; and the unknown colours with their pixel
        counts.
    """
    packed = pack_colors(picture)
    labels = np.full(packed.shape, VOID, np.uint8)
    known = np.zeros(packed.shape, bool) if valid is None else ~valid
    for label, color in enumerate(classes.colors):
        here = packed == _pack(color)
        labels[here] = label
        known |= here
    for color in classes.void_colors:
        known |= packed == _pack(color)
    if known.all():
        return labels, {}
    values, counts = np.unique(packed[~known], return_counts=True)
    return labels, {_unpack(int(v)): int(n) for v, n in zip(values, counts, strict=True)}


def nearest_class(color: Color, classes: ClassMap) -> tuple[str, Color]:
    """Return name and colour of the class whose colour has the smallest distance to `color` in RGB."""
    distances = ((np.array(classes.colors) - np.array(color)) ** 2).sum(axis=1)
    index = int(distances.argmin())
    return classes.names[index], classes.colors[index]


def _pack(color: Color) -> int:
    return (color[0] << 16) | (color[1] << 8) | color[2]


def _unpack(value: int) -> Color:
    return (value >> 16, (value >> 8) & 255, value & 255)
