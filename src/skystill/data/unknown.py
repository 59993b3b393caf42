"""Colours and numbers in masks that belong to no class: described in few lines, with a classes file that would fit."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from skystill.classes import ClassMap, hex_color, parse_color
from skystill.data.mask_files import read_mask
from skystill.data.masks import MaskReading, count_values, nearest_class, pack_colors, stripes
from skystill.data.pairs import Pair
from skystill.errors import DataError

_MIXED = 20  # more rare colours than this are mixtures, which smoothing makes, and no classes
_COMMON = 0.01  # fraction of the pixels of the masks from which on a colour is described on its own
_KEPT = 1000  # unknown colours that are kept of one mask; a photograph taken for a mask holds millions
_OPENED = 200  # masks that are opened for a suggestion, spread over all
_SUGGESTED = 40  # entries of a suggestion


@dataclass
class _Found:
    pixels: int = 0
    masks: list[Path] = field(default_factory=list)


class UnknownPixels:
    """Pixels of masks that belong to no class. Masks are added one by one."""

    def __init__(self) -> None:
        self._total = 0
        self._found: defaultdict[str, _Found] = defaultdict(_Found)
        self._in_lossy, self._lossy_colors = _Found(), 0

    def add(self, path: Path, reading: MaskReading) -> None:
        """Add the unknown pixels of a mask."""
        self._total += reading.labels.size
        if reading.lossy and reading.unknown:
            self._in_lossy.pixels += sum(reading.unknown.values())
            self._in_lossy.masks.append(path)
            self._lossy_colors = max(self._lossy_colors, len(reading.unknown))
            return
        for name, count in Counter(reading.unknown).most_common(_KEPT):
            self._found[name].pixels += count
            self._found[name].masks.append(path)

    def describe(self, classes: ClassMap) -> list[str]:
        """Return one line for each common colour or number, one for all mixtures, and one for all lossy files."""
        ordered = sorted(self._found.items(), key=lambda item: -item[1].pixels)
        rare = [item for item in ordered if item[1].pixels < _COMMON * self._total]
        common = ordered[: len(ordered) - len(rare)] if len(rare) > _MIXED else ordered
        lines = [_one_line(name, found, classes) for name, found in common]
        if len(rare) > _MIXED:
            masks = list(dict.fromkeys(path for _, found in rare for path in found.masks))
            lines.append(
                f"{len(rare):,} rare colours or numbers ({sum(found.pixels for _, found in rare):,} pixels) belong to "
                f"no class of {classes.source}: so many mixtures come from masks that were resized with smoothing. "
                f"Resize them with the nearest pixel, or export them again. In: {_listed(masks)}."
            )
        if self._in_lossy.masks:
            lines.append(
                f"{len(self._in_lossy.masks)} mask(s) are saved as JPEG, or in another way that changes colours and "
                "numbers (lossy WebP or LERC, and JPEG 2000, of which nobody can see whether it is lossy): "
                f"{self._in_lossy.pixels:,} pixels, with up to {self._lossy_colors:,} colours or numbers in one mask, "
                f"are of no class of {classes.source}, or of no class for sure. Export the masks again, as PNG; to "
                f"convert these files does not help. In: {_listed(self._in_lossy.masks)}."
            )
        return lines


def _one_line(name: str, found: _Found, classes: ClassMap) -> str:
    near = ""
    if name.startswith("#"):
        nearest, color = nearest_class(parse_color(name, "mask"), classes)
        near = f"; the nearest class colour is {nearest} {hex_color(color)}"
    return (
        f"{name}: {found.pixels:,} pixels in {len(found.masks)} mask(s) belong to no class of {classes.source}{near}. "
        f"In: {_listed(found.masks)}. Give it a class in a --classes FILE, or list it there under void."
    )


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def suggest_classes(pairs: Sequence[Pair], classes: ClassMap | None = None) -> str:
    """Return the text of a classes file that fits the masks, with a line that introduces it.

    Args:
        pairs: images and masks. At most 200 masks are opened, spread over all.
        classes: classes that do not fit. Their names are kept where their colour or value is in the masks.

    Returns:
        The text; empty if no mask can be read.
    """
    spread = pairs[:: -(-len(pairs) // _OPENED) or 1]
    numbers: Counter[int] = Counter()
    colors: Counter[int] = Counter()
    for pair in spread:
        try:
            is_index, counts = _contents(pair.mask, classes)
        except DataError:
            continue  # reported with the other problems
        (numbers if is_index else colors).update(counts)
    by_number = numbers.total() >= colors.total()
    found = numbers if by_number else colors
    if not found:
        return ""
    total = found.total()
    names, void = _known(classes, by_number) if classes else ({}, [])
    # All of them, unless there are so many that most are mixtures.
    least = _COMMON / 20 * total if len(found) > _SUGGESTED else 0
    common = [value for value, count in found.most_common(_SUGGESTED) if count >= least]
    lines = ["classes:"]
    for place, value in enumerate(sorted(common) if by_number else common, start=1):
        name = names.get(value, f"class_{value if by_number else place}")
        scored = ", scored: false" if classes and name in classes.unscored else ""
        entry = f"- {{name: {json.dumps(name, ensure_ascii=False)}, {_key(value, by_number)}{scored}}}"
        share = f"{found[value]:,} pixels, {100 * found[value] / total:.1f} %"
        lines.append(f"  # void, {_key(value, by_number)}: {share}" if value in void else f"  {entry}  # {share}")
    left = len(found) - len(common)
    lines += [f"  # and {left:,} rarer ones"] if left else []
    shown = ", ".join(str(value) if by_number else f'"#{value:06X}"' for value in void)
    lines.append(f"{'ignore_index' if by_number and len(void) == 3 else 'void'}: [{shown}]")
    where = "the masks" if len(spread) == len(pairs) else f"{len(spread)} of the {len(pairs)} masks"
    return "\n".join(
        [f"A classes.yaml of what {where} hold; give the names, and move to void what is unknown:", *lines]
    )


def _key(value: int, by_number: bool) -> str:
    return f"value: {value}" if by_number else f'color: "#{value:06X}"'


def _contents(path: Path, classes: ClassMap | None) -> tuple[bool, dict[int, int]]:
    """Return whether a mask holds numbers, and how many pixels each number or packed colour has."""
    mask = read_mask(path)
    is_index = mask.index is not None and (not mask.has_palette or (classes is not None and classes.indexed))

    def pixels(rows: slice) -> npt.NDArray[Any]:
        if is_index and mask.index is not None:
            return mask.index[rows]
        return pack_colors(mask.colors[rows] if mask.index is None else mask.colors[mask.index[rows]])

    def parts() -> Iterator[npt.NDArray[Any]]:
        for rows in stripes(mask.colors if mask.index is None else mask.index):
            yield pixels(rows) if mask.valid is None else pixels(rows)[mask.valid[rows]]

    return is_index, count_values(parts())[0]


def _known(classes: ClassMap, by_number: bool) -> tuple[dict[int, str], list[int]]:
    """Return the names of the numbers or of the packed colours of classes, and those of void."""
    if by_number:
        return dict(zip(classes.values or range(len(classes)), classes.names, strict=True)), [*classes.void_values]
    void, own = ([(r << 16) | (g << 8) | b for r, g, b in colors] for colors in (classes.void_colors, classes.colors))
    return dict(zip(own, classes.names, strict=True)), void
