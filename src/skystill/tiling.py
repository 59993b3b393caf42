"""How a raster is cut: lanes of columns, units of rows within a lane, tiles within a unit. Geometry only.

A unit is what is read, predicted, written and, after a crash, not done again. Tiles overlap by twice the margin; cores
tile the raster without gaps. All cores and margins are multiples of 64, so that every tile meets the network's
down-sampling in the same phase as the whole raster would.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_PHASE = 64


@dataclass(frozen=True)
class Tile:
    """A piece for the network. Rows and columns of the raster, ends exclusive.

    Args:
        top, bottom, left, right: the core, of which the tile is the owner.
        read_top, read_bottom, read_left, read_right: the core and the margin around it, as far as the raster goes.
    """

    top: int
    bottom: int
    left: int
    right: int
    read_top: int
    read_bottom: int
    read_left: int
    read_right: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the core in the raster."""
        return np.s_[self.top : self.bottom, self.left : self.right]

    @property
    def read(self) -> tuple[slice, slice]:
        """Rows and columns of what is read in the raster."""
        return np.s_[self.read_top : self.read_bottom, self.read_left : self.read_right]

    @property
    def core(self) -> tuple[slice, slice]:
        """Rows and columns of the core within what is read."""
        rows = slice(self.top - self.read_top, self.bottom - self.read_top)
        return rows, slice(self.left - self.read_left, self.right - self.read_left)


@dataclass(frozen=True)
class Unit:
    """A row of tiles in one lane.

    Args:
        index: place in the order of work.
        lane: number of the lane.
        row: number of the tile row; 0 begins a lane.
        top, bottom, left, right: what the unit writes.
        tiles: what it runs, from left to right.
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
        """Top, bottom, left and right of what its tiles read."""
        first, last = self.tiles[0], self.tiles[-1]
        return first.read_top, first.read_bottom, first.read_left, last.read_right


@dataclass(frozen=True)
class Grid:
    """The cut of one raster.

    Args:
        height, width: of the raster.
        tile_height, tile_width: largest tile with its margins.
        margin: pixels read on each side of a core.
        lane_width: about how wide a lane is; the raster's width for one lane.
        rows_first: order of the units: all lanes of a row before the next row, for files that are read top to bottom.
        blend: True where neighbouring tiles are blended over the whole overlap: a unit then writes the rows that no
            later unit adds to, and a lane runs the neighbours' tiles that reach into it.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    margin: int
    lane_width: int
    rows_first: bool = False
    blend: bool = False

    def units(self) -> Iterator[Unit]:
        """All units: lane after lane from top to bottom, or row after row."""
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
            run = columns[max(0, first - reach) : first + per_lane + reach]
            tiles = tuple(self._tile(*rows[row], left, right) for left, right in run)
            yield Unit(index, lane, row, *self._written(row, rows), own[0][0], own[-1][1], tiles)

    def _tile(self, top: int, bottom: int, left: int, right: int) -> Tile:
        margin = self.margin
        read_rows = max(0, top - margin), min(self.height, bottom + margin)
        read_columns = max(0, left - margin), min(self.width, right + margin)
        return Tile(top, bottom, left, right, *read_rows, *read_columns)

    def _written(self, row: int, rows: list[tuple[int, int]]) -> tuple[int, int]:
        top, bottom = rows[row]
        if not self.blend:
            return top, bottom
        above = max(0, top - self.margin) if row else 0
        below = max(0, bottom - self.margin) if row + 1 < len(rows) else self.height
        return above, below

    def _cores(self, size: int, tile: int) -> list[tuple[int, int]]:
        """0..size in equal steps as large as the tile allows: equal, so that no sliver remains at the end."""
        largest = max(_PHASE, (tile - 2 * self.margin) // _PHASE * _PHASE)
        equal = _whole(-(-size // -(-size // largest)))
        # A core of twice the margin and more: then no pixel is blended from three tiles in a row.
        step = min(largest, max(equal, _whole(2 * self.margin)))
        return [(start, min(start + step, size)) for start in range(0, size, step)]


def _whole(size: int) -> int:
    """The next multiple of the phase."""
    return -(-size // _PHASE) * _PHASE
