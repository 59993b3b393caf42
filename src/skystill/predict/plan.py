"""How large tiles and how many workers may be, so that a prediction stays under a limit of memory."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from skystill.errors import SettingsError
from skystill.model.engine import Infer
from skystill.model.measure import cores, peak_rss_bytes
from skystill.raster.source import CACHE_BYTES, RasterSource
from skystill.settings import RasterSettings
from skystill.tiling import Grid

_TILES = (2048, 1536, 1024, 768, 512, 384, 256)
_LANES = (2048, 1024)
_BLEND_LANE = 8192  # each lane runs its neighbours' edge tiles again
_BLOCK = 512  # side of the written files' blocks: tiles should fill them, or they are compressed twice
_SPARE_BYTES = 24 * 2**20  # queues, compression, the allocator's gaps
_TRIAL_SIDE = 512


@dataclass(frozen=True)
class Plan:
    """What a prediction will use.

    Args:
        grid: how the raster is cut.
        threads: tiles at once.
    """

    grid: Grid
    threads: int


@dataclass(frozen=True)
class NetworkMemory:
    """What a network takes.

    Args:
        base_bytes: resident memory of the process with the network open, before any raster.
        bytes_per_pixel: on top of that, for each pixel of a tile that is being run.
    """

    base_bytes: int
    bytes_per_pixel: float


def choose_plan(
    source: RasterSource,
    tile: int,
    overlap: int,
    num_classes: int,
    threads: int,
    wishes: RasterSettings,
    cost: NetworkMemory | None,
) -> Plan:
    """Cut a raster.

    Without a limit: tiles of the size wished for, as many at once as there are cores. With one: the largest tiles and
    the most workers that stay under it.

    Args:
        source: what is read.
        tile: side of the tiles in pixels.
        overlap: pixels shared by neighbours.
        num_classes: C.
        threads: 0 for all cores.
        wishes: the limit, and whether tiles are blended.
        cost: of the network, from `measure_network_memory`; needed with a limit only.

    Raises:
        SettingsError: an overlap that leaves no core, or a limit that cannot be kept; says the smallest that can.
    """
    margin = overlap // 2
    smallest = 2 * margin + max(64, 2 * margin if wishes.blend else 0)
    if tile < smallest:
        raise SettingsError(
            f"tiles of {tile} pixels with {overlap} shared leave no middle; --tile must be {smallest} or more."
        )
    workers = threads or cores()
    limit = wishes.max_memory
    if limit is None or cost is None:
        return Plan(_cut(source, tile, margin, _BLEND_LANE if wishes.blend else _LANES[0], wishes.blend), workers)
    sizes = [size for size in (tile, *_TILES) if smallest <= size <= max(tile, smallest)]
    estimates: list[int] = []
    for count in range(workers, 0, -1):
        for size in sizes:
            for lane in _LANES:
                grid = _cut(source, size, margin, lane, wishes.blend)
                need = _need(source, grid, num_classes, count, cost)
                if need <= limit:
                    return Plan(grid, count)
                estimates.append(need)
    raise SettingsError(
        f"--max-memory {limit / 1e6:.0f}MB cannot be kept for {source.path}; the smallest possible is "
        f"{-(-min(estimates) // 10**6)}MB."
    )


def _cut(source: RasterSource, tile: int, margin: int, lane: int, blend: bool) -> Grid:
    """Lanes from top to bottom; a wide source of whole-width blocks instead row by row, from a spool."""
    rows_first = source.sequential and source.width > 2 * lane
    if source.sequential and not rows_first:
        lane = source.width
    rows, columns = (tile, tile) if tile < _BLOCK + 2 * margin else _whole_blocks(tile, margin)
    return Grid(source.height, source.width, rows, columns, margin, lane, rows_first, blend)


def _whole_blocks(tile: int, margin: int) -> tuple[int, int]:
    """Rows and columns of tiles about as large as a square one, whose cores are whole blocks of the written files."""
    rows = _BLOCK + 2 * margin
    columns = max(1, round((tile * tile / rows - 2 * margin) / _BLOCK)) * _BLOCK
    return rows, columns + 2 * margin


def _need(source: RasterSource, grid: Grid, num_classes: int, workers: int, cost: NetworkMemory) -> int:
    """Peak bytes of the process."""
    lane = min(grid.width, grid.lane_width) + 2 * grid.margin
    rows = min(grid.height, grid.tile_height)
    tile = rows * min(grid.width, grid.tile_width)
    read = 3 * rows * lane * 3  # the unit that is run, the next one, and it once more while it is decoded
    if max(source.factors) > 1:
        read = int(read * (1 + math.prod(source.factors) / 2))
    blended = 4 * num_classes * (4 * grid.margin * lane + 2 * tile) if grid.blend else 0
    cache = max(CACHE_BYTES, source.block_row_bytes if source.sequential else 0)
    if grid.rows_first:
        blended = blended * grid.width // lane
    return int(
        cost.base_bytes
        + workers * tile * cost.bytes_per_pixel
        + read
        + 3 * rows * lane
        + blended
        + cache
        + _SPARE_BYTES
    )


def measure_network_memory(infer: Infer) -> NetworkMemory:
    """Run one tile and see."""
    planes = np.zeros((3, _TRIAL_SIDE, _TRIAL_SIDE), np.uint8)
    infer(planes[:, :64, :64])
    _reset_peak()
    before = psutil.Process().memory_info().rss
    infer(planes)
    grown = max(0, peak_rss_bytes() - before)
    # Where the peak cannot be set back, an earlier one may hide this one: 64 bytes is what a small network takes.
    return NetworkMemory(before, max(64.0, grown / _TRIAL_SIDE**2))


def _reset_peak() -> None:
    """On Linux, begin counting the peak anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
