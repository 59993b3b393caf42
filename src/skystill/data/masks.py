"""Read one mask as labels, by its colours or by its numbers. Every error names the file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Labels, hex_color
from skystill.data.map_labels import open_map
from skystill.data.mask_files import Index, MaskPixels, Picture, Valid, read_mask
from skystill.data.pairs import Pair
from skystill.default_colors import Color
from skystill.errors import DataError

_JPEG_GAP = 32  # numbers that are closer than this can be turned into each other by JPEG
_STRIPE_PIXELS = 2**20  # what is computed at once: arrays beside a large mask would take several times its memory
_KINDS = 2**13  # colours or wide numbers that are counted one by one; an image that is taken for a mask has millions
OTHERS = "other colours or numbers"
"""Stands in `MaskReading.unknown` for those beyond the most common 8,192."""


@dataclass(frozen=True)
class MaskReading:
    """A mask that was read as labels.

    Args:
        labels: (H, W) uint8, 255 = void.
        unknown: number of pixels of each colour ("#6EC1E4") or label number ("label 9") that belongs to no class.
            These pixels are void in `labels`. `OTHERS` stands for the rarest of very many.
        nodata: number of pixels that are void because the raster has no data there.
        lossy: as in `skystill.data.mask_files.MaskPixels`.
        overlaps, outside: as in `skystill.data.map_labels.Burnt`; empty, and 0, for a mask.
    """

    labels: Labels
    unknown: dict[str, int]
    nodata: int = 0
    lossy: bool = False
    overlaps: dict[tuple[int, int], int] = field(default_factory=dict)
    outside: int = 0


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


def read_stored_labels(pair: Pair, classes: ClassMap) -> MaskReading:
    """Read the mask of a pair as labels of its own size, or burn the labels of a window of a map.

    Raises:
        DataError: as `read_labels`, or the vector file cannot be read.
    """
    if pair.bounds is None:
        return read_labels(pair.mask, classes)
    burnt = open_map(pair.image, pair.mask).burn(pair.bounds, classes)
    return MaskReading(burnt.labels, {}, overlaps=burnt.overlaps, outside=burnt.outside)


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
    reading = read_stored_labels(pair, classes)
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
    picture, table = (mask.colors, None) if mask.index is None else (mask.index, mask.colors)
    labels, unknown, others = _look_up(picture, table, classes, mask.valid)
    named = {hex_color(color): count for color, count in unknown.items()}
    return _reading(labels, named | ({OTHERS: others} if others else {}), mask)


def _from_index(index: Index, mask: MaskPixels, classes: ClassMap) -> MaskReading:
    label_of = classes.label_of_value
    narrow = index.dtype in (np.uint8, np.uint16)

    def parts() -> Iterator[Index]:
        for rows in stripes(index):
            part = index[rows] if mask.valid is None else index[rows][mask.valid[rows]]
            yield part if narrow else part[~np.isin(part, list(label_of))]

    counts, others = count_values(parts())
    if mask.lossy and min(np.diff(sorted(label_of)).tolist(), default=256) < _JPEG_GAP and len(counts) > 1:
        label_of = {}  # JPEG and its like turn such numbers into each other, and nobody sees it
    unknown = {f"label {value}": count for value, count in counts.items() if value not in label_of}
    labels = np.empty(index.shape, np.uint8)
    for rows in stripes(index):
        labels[rows] = _labels_of(index[rows], label_of)
    return _reading(labels, unknown | ({OTHERS: others} if others else {}), mask)


def _labels_of(index: Index, label_of: Mapping[int, int]) -> Labels:
    """Return the labels of some rows of an index."""
    if index.dtype in (np.uint8, np.uint16):  # a table is much faster than to sort
        table = [label_of.get(value, VOID) for value in range(np.iinfo(index.dtype).max + 1)]
        return np.array(table, np.uint8)[index]
    labels = np.full(index.shape, VOID, np.uint8)
    for value, label in label_of.items():
        labels[index == value] = label
    return labels


def _reading(labels: Labels, unknown: dict[str, int], mask: MaskPixels) -> MaskReading:
    if mask.valid is None:
        return MaskReading(labels, unknown, 0, mask.lossy)
    labels[~mask.valid] = VOID
    return MaskReading(labels, unknown, int((~mask.valid).sum()), mask.lossy)


def _check_agreement(path: Path, by_color: MaskReading, by_index: MaskReading, classes: ClassMap) -> None:
    """Check that the numbers of a palette mask do not say something else than its colours, just as well."""
    if not by_index.unknown and (by_index.labels != by_color.labels).any():
        raise DataError(
            f"{path}: its colours and its numbers are both those of classes, and do not agree. Take either color "
            f"or value out of {classes.source}."
        )


def stripes(array: npt.NDArray[Any]) -> Iterator[slice]:
    """Yield the rows of an image in parts of a million pixels."""
    rows = max(1, _STRIPE_PIXELS // max(1, array.shape[1]))
    return (slice(top, top + rows) for top in range(0, array.shape[0], rows))


def count_values(parts: Iterable[npt.NDArray[Any]]) -> tuple[dict[int, int], int]:
    """Return how many pixels each value of a mask has, and how many have values beyond the most common 8,192.

    Of 8 and 16 bits all values are counted. Otherwise the counts of a mask with more values are lower bounds.

    Args:
        parts: the values: integers.
    """
    found: Counter[int] = Counter()
    others, most = 0, _KINDS
    for part in parts:
        if part.dtype in (np.uint8, np.uint16):
            table = np.bincount(part.ravel())
            values = np.flatnonzero(table)
            counts, most = table[values], np.iinfo(part.dtype).max + 1
        else:
            values, counts = np.unique(part, return_counts=True)
        if len(values) > most:
            kept = np.argpartition(counts, -most)[-most:]
            others += int(counts.sum() - counts[kept].sum())
            values, counts = values[kept], counts[kept]
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(found) > most:
            common = Counter(dict(found.most_common(most)))
            others += found.total() - common.total()
            found = common
    return dict(found), others


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
    labels, unknown, _ = _look_up(picture, None, classes, valid)
    return labels, unknown


def _look_up(
    picture: npt.NDArray[Any], table: Picture | None, classes: ClassMap, valid: Valid | None
) -> tuple[Labels, dict[Color, int], int]:
    """Return labels, unknown colours with their pixel counts, and the number of pixels of further unknown colours.

    Args:
        picture: (H, W, 3) uint8 RGB, or (H, W) numbers in the table of colours.
        table: (N, 3) uint8 RGB, for numbers.
        classes: the classes with their colours.
        valid: (H, W) bool, or None.
    """
    labels = np.full(picture.shape[:2], VOID, np.uint8)

    def unknown_parts() -> Iterator[npt.NDArray[np.uint32]]:
        for rows in stripes(picture):
            colors = picture[rows] if picture.ndim == 3 or table is None else table[picture[rows]]
            packed = pack_colors(colors)
            known = np.zeros(packed.shape, bool) if valid is None else ~valid[rows]
            for label, color in enumerate(classes.colors):
                here = packed == _pack(color)
                labels[rows][here] = label
                known |= here
            for color in classes.void_colors:
                known |= packed == _pack(color)
            if not known.all():
                yield packed[~known]

    counts, others = count_values(unknown_parts())
    return labels, {_unpack(value): count for value, count in counts.items()}, others


def nearest_class(color: Color, classes: ClassMap) -> tuple[str, Color]:
    """Return name and colour of the class whose colour has the smallest distance to `color` in RGB."""
    distances = ((np.array(classes.colors) - np.array(color)) ** 2).sum(axis=1)
    index = int(distances.argmin())
    return classes.names[index], classes.colors[index]


def _pack(color: Color) -> int:
    return (color[0] << 16) | (color[1] << 8) | color[2]


def _unpack(value: int) -> Color:
    return (value >> 16, (value >> 8) & 255, value & 255)
