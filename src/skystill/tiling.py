"""The geometry of tiled prediction: lanes of columns, units of rows within a lane, tiles within a unit.

A unit is read, predicted and written as a whole. After a crash, finished units are not computed again. Neighbouring
tiles overlap by twice the margin. The cores of the tiles cover the raster without gaps. Cores begin at multiples of 64.
If the margin is a multiple of 64 too (it is 64 by default), a tile is down-sampled by the network on the same pixel
grid as the whole raster would be.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PHASE = 64
"""Cores begin at multiples of this number of pixels, and are at least this large where the raster is."""
WHOLE_PHASE = 16
"""Windows of networks of fixed input size begin at multiples of this number of pixels, so that tiles at the edge of a
raster are down-sampled on the same pixel grid as all others. Most networks, and all exports but one, halve four times
or less. Larger multiples would need more invented pixels at the edge."""


@dataclass(frozen=True)
class Tile:
    """The input of one call of the network. All values are rows or columns of the raster; ends are exclusive.

    Args:
        top, bottom, left, right: the core. In crop mode only the core of a tile is kept.
        read_top, read_bottom, read_left, read_right: the core and the margin around it, cut at the raster's edge.
        window: slices (rows, columns) of the raster that the network is given: what is read, or more (`Grid.whole`).
    """

    top: int
    bottom: int
    left: int
    right: int
    read_top: int
    read_bottom: int
    read_left: int
    read_right: int
    window: tuple[slice, slice]

    @property
    def place(self) -> tuple[slice, slice]:
        """Slices (rows, columns) of the core in the raster."""
        return np.s_[self.top : self.bottom, self.left : self.right]

    @property
    def read(self) -> tuple[slice, slice]:
        """Slices (rows, columns) of the core with its margin in the raster."""
        return np.s_[self.read_top : self.read_bottom, self.read_left : self.read_right]

    @property
    def core(self) -> tuple[slice, slice]:
        """Slices (rows, columns) of the core within the area that is read."""
        rows = slice(self.top - self.read_top, self.bottom - self.read_top)
        return rows, slice(self.left - self.read_left, self.right - self.read_left)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Slices (rows, columns) of the area that is read within the window."""
        top, left = self.window[0].start, self.window[1].start
        return np.s_[self.read_top - top : self.read_bottom - top, self.read_left - left : self.read_right - left]


@dataclass(frozen=True)
class Unit:
    """A row of tiles in one lane.

    Args:
        index: position in the order of processing.
        lane: number of the lane.
        row: number of the tile row. 0 is the first row of a lane.
        top, bottom, left, right: the area that the unit writes; ends are exclusive.
        tiles: the tiles that are computed for it, from left to right.
    """

    index: int
    lane: int
    row: int
    top: int
    bottom: int
    left: int
    right: int
    tiles: tuple[Tile, ...]

    @property
    def read(self) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of the windows of its tiles; ends are exclusive."""
        (rows, first), (_, last) = self.tiles[0].window, self.tiles[-1].window
        return rows.start, rows.stop, first.start, last.stop


@dataclass(frozen=True)
class Grid:
    """The division of one raster into units and tiles.

    Args:
        height, width: size of the raster in pixels.
        tile_height, tile_width: largest size of a tile in pixels, margins included.
        margin: pixels that are read on each side of a core.
        lane_width: approximate width of a lane in pixels. The width of the raster gives one lane.
        rows_first: order of the units. True processes all lanes of a row before the next row. This is for files that
            are read from top to bottom.
        blend: True if neighbouring tiles are blended in their overlap. A unit then writes the rows to which no later
            unit contributes, and a lane also computes the tiles of its neighbours that overlap with it.
        whole: True for a network of fixed input size: the windows of tiles at the edges of the raster are as large as
            all others, where the raster is large enough. They reach farther into the raster.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    margin: int
    lane_width: int
    rows_first: bool = False
    blend: bool = False
    whole: bool = False

    @property
    def largest(self) -> tuple[int, int]:
        """Rows and columns of the largest tile that the network is given."""
        rows, columns = self._cores(self.height, self.tile_height), self._cores(self.width, self.tile_width)
        tiles = [self._tile(*row, *column) for row in rows[:2] for column in columns[:2]]  # all others are as these
        windows = [tile.window for tile in tiles]
        return max(down.stop - down.start for down, _ in windows), max(
            across.stop - across.start for _, across in windows
        )

    @property
    def count(self) -> int:
        """Number of units."""
        return sum(1 for _ in self.units())

    @property
    def is_one_tile(self) -> bool:
        """Whether the whole raster is one tile."""
        units = list(itertools.islice(self.units(), 2))
        return len(units) == 1 and len(units[0].tiles) == 1

    def units(self) -> Iterator[Unit]:
        """Yield all units, lane by lane from top to bottom, or row by row if `rows_first`."""
        rows = self._cores(self.height, self.tile_height)
        columns = self._cores(self.width, self.tile_width)
        per_lane = max(1, self.lane_width // (columns[0][1] - columns[0][0]))
        lanes = list(range(0, len(columns), per_lane))
        places = itertools.product(range(len(lanes)), range(len(rows)))
        if self.rows_first:
            places = itertools.product(range(len(rows)), range(len(lanes)))
        reach = int(self.blend)
        for index, place in enumerate(places):
            row, lane = place if self.rows_first else place[::-1]
            first = lanes[lane]
            own = columns[first : first + per_lane]
            in_lane = columns[max(0, first - reach) : first + per_lane + reach]
            tiles = tuple(self._tile(*rows[row], left, right) for left, right in in_lane)
            yield Unit(index, lane, row, *self._written(row, rows), own[0][0], own[-1][1], tiles)

    def _tile(self, top: int, bottom: int, left: int, right: int) -> Tile:
        margin = self.margin
        read_rows = max(0, top - margin), min(self.height, bottom + margin)
        read_columns = max(0, left - margin), min(self.width, right + margin)
        window = slice(*read_rows), slice(*read_columns)
        if self.whole:
            window = _grown(window[0], self.tile_height, self.height), _grown(window[1], self.tile_width, self.width)
        return Tile(top, bottom, left, right, *read_rows, *read_columns, window)

    def _written(self, row: int, rows: list[tuple[int, int]]) -> tuple[int, int]:
        top, bottom = rows[row]
        if not self.blend:
            return top, bottom
        above = max(0, top - self.margin) if row else 0
        below = max(0, bottom - self.margin) if row + 1 < len(rows) else self.height
        return above, below

    def _cores(self, size: int, tile: int) -> list[tuple[int, int]]:
        """Divide 0..size into cores of equal size, as large as the tile allows.

        They are equal so that the last core is not a narrow strip.
        """
        largest = max(PHASE, (tile - 2 * self.margin) // PHASE * PHASE)
        equal = _whole(-(-size // -(-size // largest)))
        # A core is at least twice the margin. Otherwise three neighbouring tiles would be blended in one pixel.
        step = min(largest, max(equal, _whole(2 * self.margin)))
        return [(start, min(start + step, size)) for start in range(0, size, step)]


def _grown(read: slice, tile: int, size: int) -> slice:
    """Return a window of about `tile` pixels around what is read, inside of an axis of `size` pixels.

    Its start is a multiple of `WHOLE_PHASE` wherever that of `read` is one.
    """
    last_start = -(-(size - tile) // WHOLE_PHASE) * WHOLE_PHASE
    start = min(read.start, max(0, last_start))
    return slice(start, max(read.stop, min(size, start + tile)))


def _whole(size: int) -> int:
    """Round up to a multiple of `PHASE`."""
    return -(-size // PHASE) * PHASE


def overlapping_cuts(size: int, tile: int) -> list[tuple[int, slice, slice]]:
    """Cut one axis of an image into tiles that overlap by a quarter of their length or more.

    Args:
        size: length of the axis in pixels, at least `tile`.
        tile: length of a tile in pixels.

    Returns:
        For each tile its start, and the slice whose result is taken from this tile: first in the image, then in the
        tile.
    """
    count = 1 if size == tile else 1 + -(-(size - tile) // max(1, tile * 3 // 4))
    starts = [round(index * (size - tile) / max(1, count - 1)) for index in range(count)]
    ends = [(start + tile + following) // 2 for start, following in itertools.pairwise(starts)]
    owned = list(zip([0, *ends], [*ends, size], strict=True))
    return [(s, slice(a, b), slice(a - s, b - s)) for s, (a, b) in zip(starts, owned, strict=True)]
