"""A tiled copy of a raster in wide compressed blocks, which would be decoded again for every window.

A copy exists as long as the process. It holds what `RasterSource` reads, so that windows of it are the same to the bit.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from skystill.progress import OnProgress, tracked
from skystill.raster.input_spec import InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.scratch import make_scratch
from skystill.raster.source import Planes, RasterSource, Valid, gdal_environment
from skystill.raster.states import FileStates
from skystill.raster.turned import UPRIGHT
from skystill.run_folder import naming_failed_writes

_TILE = 256
_ROWS_BYTES = 2**24  # of the rows that are read at once
_LARGE_BLOCK, _WIDE = 2**22, 4096  # pixels of a block, or of a row of them, that are decoded for the corner of a window
_DEFLATE: dict[str, Any] = {"compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}


@dataclass(frozen=True)
class TiledCopy:
    """A copy of a raster as a spec reads it.

    Args:
        path: the GeoTIFF: the bands of the spec, and one that is 1 where pixels are valid.
        states: the files of the raster as they were before.
    """

    path: Path
    states: FileStates

    def read(self, bounds: tuple[int, int, int, int], spec: InputSpec) -> tuple[Planes, Valid | None]:
        """Read a window as `RasterSource.read` does.

        Args:
            bounds: the window.
            spec: the spec, with other statistics of its bands perhaps.

        Raises:
            SourceChanged: the raster is no longer the one that was copied.
        """
        top, bottom, left, right = bounds
        with gdal_environment(), open_raster(self.path) as file:
            values = file.read(window=Window(left, top, right - left, bottom - top))
        self.states.check("what is read")
        planes, valid = values[:-1], values[-1] > 0
        if valid.all():
            return planes, None
        if not spec.is_colors:
            planes[:, ~valid] = spec.fill[:, None]
        return planes, valid


_copies: dict[tuple[Path, str], TiledCopy] = {}


class _Process:
    """Owns the copies of this process."""


_OWNER = _Process()


def find_copy(path: Path, spec: InputSpec) -> TiledCopy | None:
    """Return the tiled copy of a raster as a spec reads it, or None if there is none."""
    return _copies.get((path, _reading(spec)))


def wide_blocks(path: Path) -> tuple[int, int] | None:
    """Return rows and columns of the blocks of a raster if they are compressed, and much larger than windows."""
    with gdal_environment(), open_raster(path) as file:
        rows, columns = file.block_shapes[0]
        packed = file.compression is not None or file.driver not in ("GTiff", "VRT")
        large = rows * columns > _LARGE_BLOCK or (columns >= file.width and file.width > _WIDE)
        return (int(rows), int(columns)) if packed and large else None


def make_copy(path: Path, spec: InputSpec, on_progress: OnProgress) -> int | None:
    """Make the tiled copy of a raster. It is used from now on by `skystill.raster.picture.read_whole`.

    Args:
        path: the raster.
        spec: what a network will be fed.
        on_progress: called with a `Progress` after some rows.

    Returns:
        its size in bytes; None if there is none, because the folder for temporary files lacks the room, or because
        parts of the raster are damaged, which its windows will tell.

    Raises:
        DataError: the raster cannot be read by the spec.
        DiskFull: the copy cannot be written.
    """
    with gdal_environment():
        source = RasterSource(str(path), as_stored=True, spec=spec)
        try:
            needed = source.height * source.width * (source.planes + 1) * source.kind.itemsize
            if source.orientation != UPRIGHT or shutil.disk_usage(tempfile.gettempdir()).free < 1.1 * needed:
                return None
            with naming_failed_writes(Path(tempfile.gettempdir()), scratch=True):
                copy = make_scratch(_OWNER) / "tiled.tif"
                _write(source, copy, on_progress)
            source.states.check("a copy of it")
        finally:
            source.close()
    if source.damaged:
        copy.unlink()
        return None
    _copies[path, _reading(spec)] = TiledCopy(copy, source.states)
    return copy.stat().st_size


def _write(source: RasterSource, copy: Path, on_progress: OnProgress) -> None:
    row_bytes = source.width * (source.planes + 1) * source.kind.itemsize
    rows = max(16, min(_TILE, _ROWS_BYTES // row_bytes // 16 * 16))  # the sides of tiles are multiples of 16
    with rasterio.open(
        copy, "w", driver="GTiff", height=source.height, width=source.width, count=source.planes + 1,
        dtype=source.kind, tiled=True, blockxsize=_TILE, blockysize=rows, photometric="minisblack",
        interleave="pixel", **_DEFLATE,
    ) as file:  # fmt: skip
        tops = range(0, source.height, rows)
        for top in tracked(tops, f"copying {Path(source.path).name} into tiles", on_progress):
            bottom = min(top + rows, source.height)
            planes, valid = source.read(top, bottom, 0, source.width)
            seen = np.ones(planes.shape[1:], bool) if valid is None else valid
            stripe = np.concatenate([planes, seen[None].astype(source.kind)])
            file.write(stripe, window=Window(0, top, source.width, bottom - top))


def _reading(spec: InputSpec) -> str:
    """Return how a spec reads pixels, without the statistics of the bands, which are not known at first."""
    return "" if spec.is_colors else repr(([(band.name, band.number) for band in spec.bands], spec.dtype))
