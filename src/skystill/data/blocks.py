"""Split a map in space: blocks of windows go to the parts, and a gap is cut between windows of different parts."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.data.map_labels import MapLabels, open_map
from skystill.data.maps import block_name, name_all, share_a_pixel
from skystill.data.pairs import SUBSETS, Pair, sheets_of, windows_by_image
from skystill.data.sheets import Sheets
from skystill.data.stratify import PARTS, Areas, stratified_parts
from skystill.data.vectors import Layer
from skystill.errors import DataError, SettingsError, first_few
from skystill.features import attribute_text
from skystill.raster.picture import Bounds

GAP = 128
"""Pixels between parts by default: twice the 64 pixels that most networks see around a pixel."""
_HOW = re.compile(r"auto|blocks(?::(?P<side>\d+(?:\.\d+)?)(?:/(?P<gap>\d+(?:\.\d+)?))?)?")
_MANY_BLOCKS, _LARGEST_BLOCK = 25, 4
_NARROW = 32  # pixels; what is left of a window beside a gap is dropped below that
Placed = list[tuple[Pair, str]]
"""Windows with the part of each."""


def is_blocks(how: str) -> bool:
    """Return whether a value of `--split` splits a map: auto, blocks, blocks:SIDE or blocks:SIDE/GAP."""
    return _HOW.fullmatch(how) is not None


def split_blocks(
    pairs: Sequence[Pair], how: str, seed: int, areas: Areas, sizes_of: Callable[[int], tuple[int, int, int]]
) -> tuple[str, tuple[int, int] | None, Placed]:
    """Split the windows of a map in space. A layer `split` decides if there is one.

    Args:
        pairs: all windows, sorted.
        how: blocks:SIDE/GAP in metres on the ground, or less of it; see `is_blocks`.
        seed: seed of the random choice.
        areas: pixels of each class in each window. Windows without labels go to no part.
        sizes_of: from a number of blocks to those for training, validation and test.

    Returns:
        the rule in words, the gap in rows and columns (None if a layer decides), and the windows with their parts, cut
        where the gap needs it.

    Raises:
        SettingsError: a block is smaller than a window.
        DataError: no window has labels, or the layer cannot be used.
    """
    labeled = [place for place in range(len(pairs)) if areas[place].any()]
    sheets, labels = sheets_of(pairs), pairs[0].mask
    if not labeled:
        raise DataError(f"{labels} labels no pixel of {name_all(sheets.images)}.")
    layer = open_map(pairs[0].image, labels).split
    if layer is not None:
        placed = _by_layer(layer, [pairs[place] for place in labeled], sheets)
        return f"by {layer}", None, with_gap(placed, (0, 0), sheets)
    given = _HOW.fullmatch(how)
    side_m, gap_m = (given["side"], given["gap"]) if given else (None, None)
    block_of = _blocks(pairs, sheets, side_m)
    blocks: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for place in labeled:
        blocks[block_of[place]].append(place)
    parts = stratified_parts(
        np.array([areas[places].sum(axis=0) for places in blocks.values()]), sizes_of(len(blocks)), seed
    )
    shared = len(sheets.images) > 1
    placed = [
        (_in_block(pairs[place], block, shared), PARTS[part])
        for (block, places), part in zip(blocks.items(), parts, strict=True)
        for place in places
    ]
    down, across = sheets.finest_m
    gap = least_gap(sheets) if gap_m is None else (math.ceil(float(gap_m) / down), math.ceil(float(gap_m) / across))
    said = f"{len(blocks)} blocks" if side_m is None else f"{len(blocks)} blocks of {side_m} m"
    return f"{said}, gap {max(gap[0] * down, gap[1] * across):.4g} m, seed {seed}", gap, with_gap(placed, gap, sheets)


def _in_block(pair: Pair, block: tuple[int, int], shared: bool) -> Pair:
    return pair.cut(pair.bounds, block_name(pair.image.stem, *block, shared)) if pair.bounds else pair


def least_gap(sheets: Sheets) -> tuple[int, int]:
    """Return the gap in rows and columns that keeps networks from seeing pixels of another part.

    Of rasters of different resolution, it is as wide in pixels of the finest one as `GAP` is in those of the coarsest.
    """
    gap = math.ceil(GAP * sheets.spread)
    return gap, gap


def _blocks(pairs: Sequence[Pair], sheets: Sheets, side_m: str | None) -> list[tuple[int, int]]:
    """Return row and column of the block that holds the middle of each window, on the grid of the first raster.

    Raises:
        SettingsError: the side of a block is smaller than a window.
        DataError: a raster has no place in the CRS of the first one.
    """
    bounds = np.array([pair.bounds for pair in pairs])
    middles = sheets.places_in_first([(pair.image, pair.bounds) for pair in pairs if pair.bounds])
    sides = np.array([_window_side(bounds[:, axis : axis + 2]) for axis in (0, 2)])
    if side_m is not None:
        pixel_m = sheets.opened[sheets.images[0]].pixel_m
        steps = [_step(side, one_m, side_m, bounds[:, axis])
                 for side, one_m, axis in zip(sides, pixel_m, (0, 2), strict=True)]  # fmt: skip
        return _numbers(middles, sides * steps)
    numbers = (_numbers(middles, sides * step) for step in range(_LARGEST_BLOCK, 0, -1))
    return next((found for found in numbers if len(set(found)) >= _MANY_BLOCKS), _numbers(middles, sides))


def _window_side(ends: npt.NDArray[np.int64]) -> int:
    """Return the rows (or columns) from one window to the next one: the first and last ones (N, 2) are given."""
    starts = np.unique(ends[:, 0])
    return int(np.diff(starts).min() if len(starts) > 1 else (ends[:, 1] - ends[:, 0]).max())


def _step(side: int, pixel_m: float, side_m: str, starts: npt.NDArray[np.int64]) -> int:
    """Return the side of a block in windows."""
    window_m = side * pixel_m
    if float(side_m) < 0.75 * window_m and len(set(starts.tolist())) > 1:
        raise SettingsError(
            f"--split blocks:{side_m}: a block of {side_m} m is smaller than a window, which has {window_m:.4g} m. "
            f"Give {math.ceil(window_m)} or more."
        )
    return max(1, round(float(side_m) / window_m))


def _numbers(middles: npt.NDArray[np.float64], sides: npt.NDArray[Any]) -> list[tuple[int, int]]:
    numbers = np.floor(middles / sides).astype(int)
    rows, columns = (numbers - numbers.min(axis=0)).T.tolist()
    return list(zip(rows, columns, strict=True))


def with_gap(placed: Placed, gap: tuple[int, int], sheets: Sheets) -> Placed:
    """Cut windows so that those of different parts are never closer than a gap, whatever raster they are of.

    Test windows stay as they are, those of validation keep away from test, and those of training from both. What is
    left of a window is one rectangle.

    Args:
        placed: windows with their parts.
        gap: rows and columns between windows of different parts; one of the two is enough.
        sheets: the rasters.
    """
    done: Placed = []
    for part in reversed(PARTS):
        held = windows_by_image(pair for pair, _ in done)
        here = [pair for pair, where in placed if where == part]
        near = {image: sheets.seen_from(image, held, gap) for image in dict.fromkeys(pair.image for pair in here)}
        for pair in here:
            left = cut_away(pair.bounds, near[pair.image], gap) if pair.bounds else None
            done += [(pair.cut(left), part)] if left else []
    return done


def cut_away(window: Bounds, others: Sequence[Bounds], gap: tuple[int, int]) -> Bounds | None:
    """Return a part of a window that is away from all others, cut by cut; None if it is narrow.

    Args:
        window: the window.
        others: windows of the same raster.
        gap: as in `with_gap`.
    """
    grown = [
        (top - gap[0], bottom + gap[0], left - gap[1], right + gap[1])
        for top, bottom, left, right in others
    ]  # fmt: skip
    near = [other for other in grown if share_a_pixel(window, other)]
    for other in sorted(near, key=lambda one: -_common(window, one)):
        if share_a_pixel(window, other):
            top, bottom, left, right = window
            cuts = ((other[1], bottom, left, right), (top, other[0], left, right),
                    (top, bottom, other[3], right), (top, bottom, left, other[2]))  # fmt: skip
            window = max(cuts, key=_area)
            if min(window[1] - window[0], window[3] - window[2]) < _NARROW:
                return None
    return window


def _area(bounds: Bounds) -> int:
    return max(0, bounds[1] - bounds[0]) * max(0, bounds[3] - bounds[2])


def _common(one: Bounds, other: Bounds) -> int:
    return _area((max(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), min(one[3], other[3])))


def _by_layer(layer: Layer, pairs: Sequence[Pair], sheets: Sheets) -> Placed:
    """Return the windows that lie within the polygons of one part.

    Raises:
        DataError: the layer says no part, another word than those of parts, or two parts for one place.
    """
    import shapely

    named = [name for name in layer.fields if name.lower() in ("split", "part")] or list(layer.fields)
    if len(named) != 1:
        raise DataError(f"{layer}: its attribute split must say train, validation or test; it has "
                        f"{', '.join(layer.fields) or 'no attributes'}.")  # fmt: skip
    placed: Placed = []
    drawn: set[str] = set()
    by_image: defaultdict[Path, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_image[pair.image].append(pair)
    for image, own in by_image.items():
        shapes = _part_shapes(sheets.opened[image], layer, named[0])
        for pair in own:
            top, bottom, left, right = pair.bounds or (0, 0, 0, 0)
            box = shapely.box(left, top, right, bottom)
            parts = [part for part in PARTS if shapely.intersection(shapes[part], box).area > 0]
            if len(parts) == 1 and shapely.covers(shapes[parts[0]].buffer(1e-6), box):
                placed.append((pair, parts[0]))
        drawn |= {part for part in PARTS if not shapes[part].is_empty}
    if lost := sorted(drawn - {part for _, part in placed}):
        raise DataError(
            f"{layer}: no window goes to {' and '.join(lost)}: its polygons there hold no whole window with labels "
            "that no polygon of another part touches.",
            mend="Draw them larger, or apart from those of other parts.",
        )
    return placed


def _part_shapes(whole: MapLabels, layer: Layer, field: str) -> dict[str, Any]:
    """Return the polygons of each part in pixels of a raster.

    Raises:
        DataError: a feature says no part.
    """
    import shapely

    found = whole.features(layer, (field,), (0, whole.height, 0, whole.width))
    words = [attribute_text(value).strip().lower() for value in found.values[field].tolist()]
    if strange := sorted(set(words) - SUBSETS.keys()):
        raise DataError(f"{layer}: {field} is {', '.join(first_few(strange))}; train, validation or test was "
                        "expected.")  # fmt: skip
    return {
        part: shapely.union_all(
            whole.polygons(layer, found.select(np.array([SUBSETS[word] == part for word in words], bool)), None)
        )
        for part in PARTS
    }
