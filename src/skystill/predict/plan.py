"""Choose the size of tiles and the number of workers, so that a prediction stays under a memory limit."""

import gc
import math
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from skystill.allocator import trim_heap
from skystill.errors import SettingsError
from skystill.model.engine import Infer
from skystill.model.measure import cores, peak_rss_bytes, reset_peak_rss
from skystill.model.trial_images import random_image
from skystill.raster.input_spec import InputSpec
from skystill.raster.source import CACHE_BYTES, RasterSource
from skystill.raster.spool import rows_at_a_time
from skystill.settings import RasterSettings
from skystill.tiling import Grid

_TILES = (2048, 1536, 1024, 768, 512, 384, 256)
_LANES = (2048, 1024)
_BLEND_LANE = 8192  # wide, because each lane computes the edge tiles of its neighbours again
_BLOCK = 512  # side of the blocks of written files; tiles should fill them, otherwise they are compressed twice
_SPARE_BYTES = 24 * 2**20  # queues, compression, fragmentation of the allocator
_SURE = 1.03  # what is measured differs by this much from process to process
_FRAGMENTED = 1.25  # memory that a runtime keeps for several workers, by that of one (docs/log.md)
_STEP_BYTES = {"polygons": 120e6, "overlay": 80e6, "areas": 30e6, "cleaning": 90e6, "cog": 20e6, "mosaic": 90e6}


@dataclass(frozen=True)
class Plan:
    """How a raster is cut and computed.

    Args:
        grid: how the raster is cut.
        threads: number of tiles that are computed at the same time.
    """

    grid: Grid
    threads: int


@dataclass(frozen=True)
class NetworkMemory:
    """The memory that a network needs.

    Args:
        base_bytes: resident memory of the process with the network open, before any raster.
        bytes_per_pixel: additional memory for each pixel of a tile that is being computed.
        layers: number of bands that are written, of all rasters.
        least_bytes: memory that the steps after the network need besides that of the network.
    """

    base_bytes: int
    bytes_per_pixel: float
    layers: int = 1
    least_bytes: int = 0


def choose_plan(
    source: RasterSource,
    tile: int,
    overlap: int,
    num_classes: int,
    threads: int,
    settings: RasterSettings,
    network_memory: NetworkMemory | None,
) -> Plan:
    """Choose how a raster is cut, and how many tiles are computed at the same time.

    Without a memory limit, tiles have the given size, and there are as many workers as threads. With a limit, the plan
    has the most workers, and for them the largest tiles, that stay under the limit.

    Args:
        source: the raster that is read.
        tile: side of the tiles in pixels, margins included. With a limit, tiles may be smaller.
        overlap: pixels that neighbouring tiles share.
        num_classes: C, number of classes.
        threads: largest number of workers; 0 uses all cores.
        settings: settings with the memory limit, and whether tiles are blended.
        network_memory: memory of the network, from `measure_network_memory`. It is needed only with a limit.

    Raises:
        SettingsError: the overlap leaves no core of a tile, or the limit cannot be kept. The message names the smallest
            possible value.
    """
    margin = overlap // 2
    smallest = 2 * margin + max(64, 2 * margin if settings.blend else 0)
    if tile < smallest:
        raise SettingsError(
            f"tiles of {tile} pixels with {overlap} shared leave no middle; --tile must be {smallest} or more."
        )
    workers = threads or cores()
    limit = settings.max_memory
    if limit is None or network_memory is None:
        return Plan(_cut(source, tile, margin, _BLEND_LANE if settings.blend else _LANES[0], settings.blend), workers)
    sizes = [size for size in (tile, *_TILES) if smallest <= size <= max(tile, smallest)]
    estimates: list[int] = []
    for count in range(workers, 0, -1):
        for size in sizes:
            for lane in _LANES:
                grid = _cut(source, size, margin, lane, settings.blend)
                need = _need(source, grid, num_classes, count, network_memory)
                if need <= limit:
                    return Plan(grid, count)
                estimates.append(need)
    raise SettingsError(
        f"--max-memory {limit / 1e6:.0f}MB cannot be kept for {source.path}; the smallest possible is "
        f"{math.ceil(_SURE * min(estimates) / 1e6)}MB."
    )


def _cut(source: RasterSource, tile: int, margin: int, lane: int, blend: bool) -> Grid:
    """Cut a raster into lanes from top to bottom.

    The units of a wide source with whole-width blocks are ordered row by row instead, and read from a spool.
    """
    rows_first = source.sequential and source.width > 2 * lane
    if source.sequential and not rows_first:
        lane = source.width
    rows, columns = tile_shape(tile, margin)
    return Grid(source.height, source.width, rows, columns, margin, lane, rows_first, blend)


def tile_shape(tile: int, margin: int) -> tuple[int, int]:
    """Return rows and columns of tiles with about the area of a square tile of side `tile`.

    The cores of large tiles consist of whole blocks of the written files.
    """
    if tile < _BLOCK + 2 * margin:
        return tile, tile
    rows = _BLOCK + 2 * margin
    columns = max(1, round((tile * tile / rows - 2 * margin) / _BLOCK)) * _BLOCK
    return rows, columns + 2 * margin


def _need(source: RasterSource, grid: Grid, num_classes: int, workers: int, network_memory: NetworkMemory) -> int:
    """Estimate the peak memory of the process in bytes. Each line counts arrays that exist at the same time."""
    lane = min(grid.width, grid.lane_width + 2 * grid.margin + (2 * grid.tile_width if grid.blend else 0))
    rows, tile_width = min(grid.height, grid.tile_height), min(grid.width, grid.tile_width)
    unit, tile = rows * lane, rows * tile_width
    planes, layers = source.planes * source.kind.itemsize, network_memory.layers
    # The unit that is computed, the next one, and the next one again while it is read, each with its valid pixels.
    held = 3 * unit * (planes + 1)
    # What is read at a time: as it is stored, converted, and what says which pixels are valid.
    decoded = min(grid.height, rows_at_a_time(source)) * grid.width if grid.rows_first else unit
    reading = decoded * (source.stored_bytes + planes + 4)
    if max(source.factors) > 1:
        reading += int(decoded * source.stored_bytes * math.prod(source.factors))
    # Two units that are filled and two that are written, one of them also packed; and the tiles that wait.
    written = layers * (6 * rows * min(grid.width, grid.lane_width) + (workers + 2) * tile)
    blended = 0
    if grid.blend:
        beside = 4 * grid.margin * (grid.width if grid.rows_first else lane)
        blended = 4 * num_classes * (beside + (2 * workers + 2) * tile)
    # The runtime keeps its memory while the further files are made.
    network = workers * tile * (network_memory.bytes_per_pixel * _FRAGMENTED + planes)
    prediction = network + held + reading + written + blended + CACHE_BYTES + source.decoder_bytes
    return int(network_memory.base_bytes + _SPARE_BYTES + max(prediction, network + network_memory.least_bytes))


def memory_of_steps(names: Iterable[str], settings: RasterSettings) -> int:
    """Return the memory in bytes that the largest of the steps after the network needs.

    Args:
        names: names of the steps that make further files.
        settings: settings of the prediction, which may ask for other steps.
    """
    every = {*names, *(["cog"] if settings.cog else [])}
    if settings.smooth is not None or settings.min_area is not None:
        every.add("cleaning")
    return int(max((_STEP_BYTES.get(name, 0.0) for name in every), default=0.0))


def check_memory_of_steps(names: Iterable[str], settings: RasterSettings, what: str) -> None:
    """Check that steps which follow the predictions stay below the memory limit. Call it with the network open.

    Args:
        names: names of the steps.
        settings: settings of the prediction, which may have a limit and ask for other steps.
        what: what the steps make, for the message.

    Raises:
        SettingsError: the limit cannot be kept. The message names the smallest possible value.
    """
    limit = settings.max_memory
    if limit is None:
        return
    trim_heap()
    need = psutil.Process().memory_info().rss + _SPARE_BYTES + memory_of_steps(names, settings)
    if need > limit:
        raise SettingsError(
            f"--max-memory {limit / 1e6:.0f}MB cannot be kept for {what}; the smallest possible is "
            f"{math.ceil(_SURE * need / 1e6)}MB."
        )


def measure_network_memory(copies: list[Infer], spec: InputSpec, side: int) -> NetworkMemory:
    """Measure the memory that a network needs, by running it on one tile of what its spec says.

    Args:
        copies: a copy of the network, which is taken out and closed: a runtime keeps the memory of its calls.
        spec: what it is fed.
        side: side of the tile in pixels. It should be small, so that the measurement itself stays below the limit.
    """
    planes = random_image(spec, side, side)
    infer = copies.pop()
    infer(planes[:, :64, :64])
    trim_heap()  # free pages of the heap would hide what the network takes
    reset_peak_rss()
    before = psutil.Process().memory_info().rss
    infer(planes)
    grown = max(0, peak_rss_bytes() - before)
    del infer
    gc.collect()
    trim_heap()
    # If the peak cannot be reset, an earlier one may hide this one. A small network takes 64 bytes per pixel, and the
    # normalisation of values two arrays of floats.
    least = 64.0 if spec.is_three_bytes else 64.0 + 8 * len(spec)
    return NetworkMemory(psutil.Process().memory_info().rss, max(least, grown / side**2))
