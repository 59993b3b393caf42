"""Run a network on a raster in bounded memory.

One reader, several workers and one writer work at the same time. Each worker runs the network on a whole tile with one
thread. Two tiles on two cores finish sooner than one tile on both cores, because no core waits for the other between
layers.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from threading import Barrier

import numpy as np
import numpy.typing as npt

from skystill.classes import Labels
from skystill.errors import ModelFileError
from skystill.model.engine import Infer
from skystill.predict.blending import blending_weights
from skystill.raster.output import NODATA, PROBABILITY_SCALE, Arrays, RasterOutput
from skystill.raster.source import Bytes, Planes, RasterSource, Valid
from skystill.raster.spool import RowSpool
from skystill.tiling import Grid, Tile, Unit

Logits = npt.NDArray[np.float32]
BeforeUnit = Callable[[], None]
OnPixels = Callable[[int], None]
"""Callback that takes the number of pixels that were just finished."""

_STRIP_VALUES = 2**17  # scores of one class that are compared at a time: they fit the cache of a core


def most_likely(scores: Logits) -> Labels:
    """Return the argmax over the classes.

    Of equal scores the first class is taken, as in numpy's `argmax`, but this is faster.

    Shape:
        scores: (C, H, W) float32.
        returns: (H, W) uint8.

    Raises:
        FloatingPointError: a score is NaN, or the largest score of a pixel is infinite. Callers name the model file.
    """
    classes, height, width = scores.shape
    labels = np.zeros((height, width), np.uint8)
    rows = max(1, _STRIP_VALUES // max(1, width))
    for top in range(0, height, rows):
        part, out = scores[:, top : top + rows], labels[top : top + rows]
        best = part[0].copy()
        for label in range(1, classes):
            # The loop goes through labels in increasing order, so the last label that won is the largest that won.
            # A maximum finds it without a branch for each pixel.
            won = (part[label] > best).view(np.uint8)
            won *= np.uint8(label)
            np.maximum(out, won, out=out)
            np.maximum(best, part[label], out=best)
        # The maximum of NaN and anything is NaN. The sum finds all in one pass; only it could overflow by itself.
        with np.errstate(invalid="ignore", over="ignore"):
            total = float(best.sum())
        if not math.isfinite(total) and not np.isfinite(best).all():
            raise FloatingPointError("scores that are not finite")
    return labels


def softmax(logits: Logits) -> Logits:
    """Return the softmax over the first axis of (C, H, W). Infinite logits give NaN, which `most_likely` refuses."""
    with np.errstate(invalid="ignore"):
        raised = np.asarray(logits - logits.max(axis=0))
        np.exp(raised, out=raised)
        raised /= raised.sum(axis=0)
    return raised


def probabilities_to_bytes(probabilities: Logits) -> Bytes:
    """Convert probabilities, 0 to 1, to bytes, 0 to 250."""
    return np.asarray(np.rint(probabilities / PROBABILITY_SCALE), np.uint8)


@dataclass(frozen=True)
class Stream:
    """The prediction of one raster.

    Args:
        infer: runs the network.
        grid: how the raster is cut.
        source: the raster that is read.
        num_classes: C, number of classes.
        threads: number of tiles that are computed at the same time.
        layers: names of the arrays to compute: "classes", "confidence", "probabilities".
        lean: whether each worker begins with the largest tile, so that memory is bounded.
        worker: what runs the network, if several rasters share it; None for threads of its own.
    """

    infer: Infer
    grid: Grid
    source: RasterSource | RowSpool
    num_classes: int
    threads: int
    layers: tuple[str, ...]
    lean: bool = False
    worker: ThreadPoolExecutor | None = None

    def predict(self, output: RasterOutput, done: Iterable[int], on_pixels: OnPixels, before_unit: BeforeUnit) -> None:
        """Write finished units from the journal into the rasters, and predict all other units.

        Args:
            output: the rasters that are written.
            done: indices of the units that are finished already.
            on_pixels: called with the number of pixels of each unit that was written.
            before_unit: called before each unit is written.
        """
        finished = set(done)
        with self._threads() as (reading, working), ThreadPoolExecutor(1) as pen:
            writes, units = deque[Future[None]](), list(self.grid.units())
            if self.lean and len(finished) < len(units):
                self._take_memory(working)
            for unit in units:
                if unit.index in finished:
                    output.replay(unit)
                    on_pixels((unit.bottom - unit.top) * (unit.right - unit.left))
            for unit, arrays in self._computed(reading, working, _to_compute(units, finished, self.grid.blend)):
                if unit.index in finished:
                    continue
                writes.append(pen.submit(self._write, output, unit, arrays, on_pixels, before_unit))
                while len(writes) > 1:
                    writes.popleft().result()
            for write in writes:
                write.result()

    def _take_memory(self, working: ThreadPoolExecutor) -> None:
        """Run the network once in each worker on the largest tile. A runtime keeps that memory for smaller tiles.

        In the order of the raster, each larger tile would take memory of its own (docs/log.md).
        """
        every = Barrier(self.threads)  # a worker waits for the others, so that each has one call

        def run() -> None:
            every.wait()
            with suppress(ModelFileError):  # a tile of the raster says more
                self.infer(np.zeros((self.source.planes, *self.grid.largest), self.source.kind))

        list(working.map(lambda _: run(), range(self.threads)))

    def compute(self, wanted: Collection[int]) -> Iterator[tuple[Unit, Arrays]]:
        """Yield units with their arrays, which are not written.

        Args:
            wanted: indices of the units.
        """
        units = list(self.grid.units())
        to_compute = _to_compute(units, {unit.index for unit in units} - set(wanted), self.grid.blend)
        with self._threads() as (reading, working):
            if self.lean:
                self._take_memory(working)
            for unit, arrays in self._computed(reading, working, to_compute):
                if unit.index in wanted:
                    yield unit, arrays

    @contextmanager
    def _threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        """Yield what reads, and what runs the network."""
        own = ThreadPoolExecutor(self.threads) if self.worker is None else nullcontext(self.worker)
        with ThreadPoolExecutor(1) as reading, own as working:
            yield reading, working

    @staticmethod
    def _write(output: RasterOutput, unit: Unit, arrays: Arrays, on_pixels: OnPixels, before_unit: BeforeUnit) -> None:
        before_unit()
        output.write(unit, arrays)
        on_pixels((unit.bottom - unit.top) * (unit.right - unit.left))

    def _computed(
        self, reading: ThreadPoolExecutor, working: ThreadPoolExecutor, units: Sequence[Unit]
    ) -> Iterator[tuple[Unit, Arrays]]:
        """Yield units with their arrays, in order. The next unit is read while this one is computed."""
        if not units:
            return
        reader = _RollingReader(self.source)
        coming = reading.submit(reader.read, units[0])
        jobs: deque[tuple[_UnitResult, Tile, Future[Piece]]] = deque()
        blender = _Blender(self.grid, self.num_classes) if self.grid.blend else None
        for place, unit in enumerate(units):
            planes, valid = coming.result()
            if place + 1 < len(units):
                coming = reading.submit(reader.read, units[place + 1])
            result = _UnitResult(unit, self.layers, self.num_classes, valid)
            for tile in unit.tiles:
                while len(jobs) > self.threads:
                    yield from _settle(jobs.popleft(), blender)
                jobs.append((result, tile, working.submit(self._work, unit, tile, planes, valid)))
        while jobs:
            yield from _settle(jobs.popleft(), blender)

    def _work(self, unit: Unit, tile: Tile, planes: Planes, valid: Valid | None) -> "Piece":
        """Run the network on one tile, and return the arrays of its core or, with blending, weighted probabilities."""
        top, _, left, _ = unit.read
        rows, columns = tile.window
        part = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        if valid is not None and not valid[part].any():
            return Piece(None)
        logits = self.infer(planes[:, *part])[:, *tile.inside]
        if self.grid.blend:
            weighted = softmax(logits)
            weighted *= blending_weights(tile, self.grid)
            return Piece(weighted)
        return Piece(None, to_layers(logits[:, *tile.core], self.layers, is_logits=True))


@dataclass(frozen=True)
class Piece:
    """The result of one tile: weighted probabilities (C, H, W) float32, or finished arrays.

    It has neither if the tile has no valid pixel.
    """

    weighted: Logits | None
    arrays: dict[str, Bytes] = field(default_factory=dict)


def to_layers(scores: Logits, layers: Sequence[str], is_logits: bool) -> dict[str, Bytes]:
    """Convert scores to the arrays to write.

    Args:
        scores: (C, H, W) float32, logits or probabilities.
        layers: names of the arrays: "classes", "confidence", "probabilities".
        is_logits: True for logits, False for probabilities.

    Returns:
        (bands, H, W) uint8 for each layer.
    """
    arrays = {"classes": most_likely(scores)[None]}
    shape = {"confidence": (1, *scores.shape[1:]), "probabilities": scores.shape}
    arrays |= {name: np.empty(shape[name], np.uint8) for name in layers if name in shape}
    rows = max(1, _STRIP_VALUES // max(1, scores.shape[2]))
    for top in range(0, scores.shape[1] if len(layers) > 1 else 0, rows):  # all at once would take 12 bytes per score
        part = np.s_[:, top : top + rows]
        probabilities = softmax(scores[part]) if is_logits else scores[part]
        if "confidence" in arrays:
            arrays["confidence"][part] = probabilities_to_bytes(probabilities.max(axis=0))
        if "probabilities" in arrays:
            arrays["probabilities"][part] = probabilities_to_bytes(probabilities)
    return {name: arrays[name] for name in layers}


class _RollingReader:
    """Reads units. Rows that were read for the unit above are not read again."""

    def __init__(self, source: RasterSource | RowSpool) -> None:
        self._source = source
        self._last: tuple[Unit, Planes, Valid | None] | None = None

    def read(self, unit: Unit) -> tuple[Planes, Valid | None]:
        """Read the window of a unit's tiles: planes (B, H, W), and valid (H, W) bool or None if all are valid."""
        top, bottom, left, right = unit.read
        planes = np.empty((self._source.planes, bottom - top, right - left), self._source.kind)
        valid: Valid | None = None
        start = top
        if self._last is not None and self._last[0].lane == unit.lane and self._last[0].read[1] > top:
            above, above_planes, above_valid = self._last
            kept = above.read[1] - top
            planes[:, :kept] = above_planes[:, -kept:]
            if above_valid is not None:
                valid = np.ones(planes.shape[1:], bool)
                valid[:kept] = above_valid[-kept:]
            start = above.read[1]
        if start < bottom:
            planes[:, start - top :], new_valid = self._source.read(start, bottom, left, right)
            if new_valid is not None:
                valid = np.ones(planes.shape[1:], bool) if valid is None else valid
                valid[start - top :] = new_valid
        self._last = (unit, planes, valid)
        return planes, valid


class _UnitResult:
    """The arrays of a unit, which are filled tile by tile. Pixels that are not valid become nodata."""

    def __init__(self, unit: Unit, layers: Sequence[str], num_classes: int, valid: Valid | None) -> None:
        self.unit = unit
        self.layers = tuple(layers)
        self._valid = valid
        shape = (unit.bottom - unit.top, unit.right - unit.left)
        self.arrays = {
            name: np.full((num_classes if name == "probabilities" else 1, *shape), NODATA, np.uint8) for name in layers
        }

    def put(self, top: int, left: int, arrays: Arrays) -> None:
        """Paste arrays whose first pixel is at row `top` and column `left` of the raster.

        Pixels outside the unit are dropped.
        """
        unit = self.unit
        for name, array in arrays.items():
            rows = max(top, unit.top), min(top + array.shape[1], unit.bottom)
            columns = max(left, unit.left), min(left + array.shape[2], unit.right)
            if rows[0] >= rows[1] or columns[0] >= columns[1]:
                continue
            cut = array[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
            here = np.s_[:, rows[0] - unit.top : rows[1] - unit.top, columns[0] - unit.left : columns[1] - unit.left]
            self.arrays[name][here] = cut

    def finished(self) -> Arrays:
        """Return all arrays, with nodata where the source has no data."""
        if self._valid is not None:
            unit = self.unit
            top, _, left, _ = unit.read
            valid = self._valid[unit.top - top : unit.bottom - top, unit.left - left : unit.right - left]
            for array in self.arrays.values():
                array[:, ~valid] = NODATA
        return self.arrays


def _settle(
    job: tuple[_UnitResult, Tile, "Future[Piece]"], blender: "_Blender | None"
) -> Iterator[tuple[Unit, Arrays]]:
    """Add the result of a tile to its unit, and yield the unit after its last tile."""
    result, tile, future = job
    piece = future.result()
    if blender is not None:
        blender.add(result, tile, piece.weighted)
    elif piece.arrays:
        result.put(tile.top, tile.left, piece.arrays)
    if tile is result.unit.tiles[-1]:
        yield result.unit, result.finished()


def _to_compute(units: Sequence[Unit], done: set[int], blend: bool) -> list[Unit]:
    """Return the units to compute: those that are not done and, with blending, also the unit above each of them."""
    wanted = {unit.index for unit in units if unit.index not in done}
    if blend:
        places = {(unit.lane, unit.row) for unit in units if unit.index in wanted}
        wanted |= {unit.index for unit in units if (unit.lane, unit.row + 1) in places}
    return [unit for unit in units if unit.index in wanted]


class _Blender:
    """Adds the weighted probabilities of neighbouring tiles.

    It holds as many rows of one lane, and columns of one tile, as twice the margin. If the grid goes row by row, it
    holds these rows for all lanes.

    Args:
        grid: how the raster is cut.
        num_classes: C, number of classes.
    """

    def __init__(self, grid: Grid, num_classes: int) -> None:
        self._grid = grid
        self._num_classes = num_classes
        self._edge: Logits | None = None  # columns that the next tile adds to
        self._above: Logits | None = None  # rows of the unit above that this one adds to
        self._below: Logits | None = None  # rows of this unit that the unit below adds to
        self._of_lane: dict[int, Logits | None] = {}  # by lane: rows of its last unit that its next unit adds to

    def add(self, result: _UnitResult, tile: Tile, weighted: Logits | None) -> None:
        """Add a tile, and paste the pixels to which no later tile adds into the result."""
        unit, margin = result.unit, self._grid.margin
        first, last = tile is unit.tiles[0], tile is unit.tiles[-1]
        shape = (tile.read_bottom - tile.read_top, tile.read_right - tile.read_left)
        if weighted is None:
            weighted = np.zeros((self._num_classes, *shape), np.float32)
        if first:
            self._start_unit(unit)
        elif self._edge is not None:
            weighted[:, :, : self._edge.shape[2]] += self._edge
        complete = weighted.shape[2] if last else max(0, tile.right - margin - tile.read_left)
        self._edge = None if last else weighted[:, :, complete:].copy()
        block = weighted[:, :, :complete]
        columns = np.s_[tile.read_left - unit.read[2] : tile.read_left - unit.read[2] + complete]
        if self._above is not None:
            block[:, : self._above.shape[1]] += self._above[:, :, columns]
        if self._below is not None:
            cut = block.shape[1] - self._below.shape[1]
            self._below[:, :, columns] = block[:, cut:]
            block = block[:, :cut]
        if block.size:
            result.put(tile.read_top, tile.read_left, to_layers(block, result.layers, is_logits=False))

    def _start_unit(self, unit: Unit) -> None:
        _, _, left, right = unit.read
        bottom, core_bottom = unit.tiles[0].read_bottom, unit.tiles[0].bottom
        self._above = self._of_lane.pop(unit.lane, None) if unit.row else None
        held = bottom - (core_bottom - self._grid.margin) if core_bottom < self._grid.height else 0
        self._below = np.zeros((self._num_classes, held, right - left), np.float32) if held else None
        self._of_lane[unit.lane] = self._below
