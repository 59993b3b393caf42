"""Split a map in space: blocks of windows go to the parts, and a gap is cut between windows of different parts."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from skystill.data.map_labels import MapLabels, open_map
from skystill.data.maps import block_name, share_a_pixel
from skystill.data.pairs import SUBSETS, Pair
from skystill.data.stratify import PARTS, Areas, stratified_parts
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
    whole = open_map(pairs[0].image, pairs[0].mask)
    labeled = [place for place in range(len(pairs)) if areas[place].any()]
    if not labeled:
        raise DataError(f"{whole.path} labels no pixel of {whole.image}.")
    if whole.split is not None:
        return f"by {whole.split}", None, _by_layer(whole, [pairs[place] for place in labeled])
    down, across = whole.pixel_m
    given = _HOW.fullmatch(how)
    side_m, gap_m = (given["side"], given["gap"]) if given else (None, None)
    rows, columns = (_groups([pair.bounds[axis] for pair in pairs if pair.bounds], size, side_m)
                     for axis, size in ((0, down), (2, across)))  # fmt: skip
    if side_m is None:
        step = _default_step(len(rows), len(columns))
        rows, columns = ({start: place // step for start, place in one.items()} for one in (rows, columns))
    blocks: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for place in labeled:
        top, _, left, _ = pairs[place].bounds or (0, 0, 0, 0)
        blocks[rows[top], columns[left]].append(place)
    parts = stratified_parts(
        np.array([areas[places].sum(axis=0) for places in blocks.values()]), sizes_of(len(blocks)), seed
    )
    placed = [
        (_in_block(pairs[place], block), PARTS[part])
        for (block, places), part in zip(blocks.items(), parts, strict=True)
        for place in places
    ]
    gap = (GAP, GAP) if gap_m is None else (math.ceil(float(gap_m) / down), math.ceil(float(gap_m) / across))
    said = f"{len(blocks)} blocks" if side_m is None else f"{len(blocks)} blocks of {side_m} m"
    return f"{said}, gap {max(gap[0] * down, gap[1] * across):.4g} m, seed {seed}", gap, with_gap(placed, gap)


def _in_block(pair: Pair, block: tuple[int, int]) -> Pair:
    return pair.cut(pair.bounds, block_name(pair.image.stem, *block)) if pair.bounds else pair


def _groups(starts: list[int], pixel_m: float, side_m: str | None) -> dict[int, int]:
    """Return the number of the block for each first row (or column) of a window.

    Args:
        starts: first row of each window.
        pixel_m: metres of a pixel.
        side_m: side of a block; None puts each window into a block of its own.

    Raises:
        SettingsError: the side is smaller than a window.
    """
    firsts = sorted(set(starts))
    if side_m is None or len(firsts) == 1:
        return {start: place for place, start in enumerate(firsts)}
    window_m = (firsts[1] - firsts[0]) * pixel_m
    if float(side_m) < 0.75 * window_m:
        raise SettingsError(
            f"--split blocks:{side_m}: a block of {side_m} m is smaller than a window, which has {window_m:.4g} m. "
            f"Give {math.ceil(window_m)} or more."
        )
    return {start: place // max(1, round(float(side_m) / window_m)) for place, start in enumerate(firsts)}


def _default_step(rows: int, columns: int) -> int:
    """Return the side of a block in windows: the largest of 4 to 1 with which there are at least 25 blocks."""
    steps = (step for step in range(_LARGEST_BLOCK, 0, -1) if -(-rows // step) * -(-columns // step) >= _MANY_BLOCKS)
    return next(steps, 1)


def with_gap(placed: Placed, gap: tuple[int, int]) -> Placed:
    """Cut windows so that those of different parts are never closer than a gap.

    Test windows stay as they are, those of validation keep away from test, and those of training from both. What is
    left of a window is one rectangle.

    Args:
        placed: windows with their parts.
        gap: rows and columns between windows of different parts; one of the two is enough.
    """
    done: Placed = []
    for part in reversed(PARTS):
        others = [pair.bounds for pair, _ in done if pair.bounds]
        for pair in [pair for pair, where in placed if where == part]:
            left = cut_away(pair.bounds, others, gap) if pair.bounds else None
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


def _by_layer(whole: MapLabels, pairs: Sequence[Pair]) -> Placed:
    """Return the windows that lie within the polygons of one part.

    Raises:
        DataError: the layer says no part, another word than those of parts, or two parts for one place.
    """
    import shapely

    layer = whole.split
    assert layer is not None  # noqa: S101 - the caller has asked
    named = [name for name in layer.fields if name.lower() in ("split", "part")] or list(layer.fields)
    if len(named) != 1:
        raise DataError(f"{layer}: its attribute split must say train, validation or test; it has "
                        f"{', '.join(layer.fields) or 'no attributes'}.")  # fmt: skip
    found = whole.features(layer, (named[0],), (0, whole.height, 0, whole.width))
    words = [attribute_text(value).lower() for value in found.values[named[0]].tolist()]
    if strange := sorted(set(words) - SUBSETS.keys()):
        raise DataError(f"{layer}: {named[0]} is {', '.join(first_few(strange))}; train, validation or test was "
                        "expected.")  # fmt: skip
    shapes = {}
    for part in PARTS:
        chosen = found.select(np.array([SUBSETS[word] == part for word in words], bool))
        shapes[part] = shapely.union_all(whole.polygons(layer, chosen, None))
    placed: Placed = []
    for pair in pairs:
        top, bottom, left, right = pair.bounds or (0, 0, 0, 0)
        box = shapely.box(left, top, right, bottom)
        parts = [part for part in PARTS if shapely.intersection(shapes[part], box).area > 0]
        if len(parts) == 1 and shapely.covers(shapes[parts[0]].buffer(1e-6), box):
            placed.append((pair, parts[0]))
    return placed
