"""Write windows into a tiled raster so that each of its blocks is written once, whatever windows they come in.

GDAL writes a block whose pixels come in several windows again whenever its cache forgets it between two of them. What
else is read in the process then decides how often, so that one prediction could give files of different sizes.
"""

import tempfile
from collections.abc import Iterator
from io import FileIO
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from skystill.errors import DiskFull
from skystill.run_folder import naming_failed_writes

Bytes = npt.NDArray[np.uint8]
_Box = tuple[int, int, int, int]
"""Top, bottom, left and right, in pixels of the raster; ends are exclusive."""


class BlockWriter:
    """Writes windows of bytes, which do not overlap, into a tiled raster.

    Pixels of incomplete blocks wait in a scratch file. The memory is that of one block.

    Args:
        file: the raster. It is closed by `close`.
        folder: folder of the scratch file, which has no name there. The system deletes it when the process ends.
    """

    def __init__(self, file: DatasetWriter, folder: Path) -> None:
        self._file, self._name = file, folder / "scratch file"  # the name is for messages
        self._rows, self._columns = file.block_shapes[0]
        self._slots: dict[_Box, int] = {}
        """By incomplete block: its place in the scratch file."""
        self._filled: dict[_Box, int] = {}
        """By incomplete block: number of its pixels that are there."""
        self._free: list[int] = []
        self._scratch: FileIO | None = None

    def write(self, array: Bytes, top: int, left: int) -> None:
        """Write a window.

        Args:
            array: (bands, H, W) uint8, its pixels.
            top: its first row in the raster.
            left: its first column.

        Raises:
            DiskFull: the scratch file cannot be written.
            RasterioError: the raster cannot be written.
        """
        box = top, top + array.shape[1], left, left + array.shape[2]
        blocks = list(self._blocks(box))
        if all(_cut(block, box) == block for block in blocks):
            self._put(array, box)
            return
        for block in blocks:
            part = _cut(block, box)
            pixels = array[:, part[0] - top : part[1] - top, part[2] - left : part[3] - left]
            if part == block:
                self._put(pixels, block)
            else:
                self._add(pixels, part, block)

    def check_whole(self) -> None:
        """Check that no block is incomplete, after the last window.

        Raises:
            RuntimeError: windows have left a hole, which is a mistake of the caller.
        """
        if self._filled:
            raise RuntimeError(f"{self._file.name}: {len(self._filled)} blocks are incomplete")

    def close(self) -> None:
        """Close the raster, and delete the scratch file."""
        self._file.close()
        if self._scratch is not None:
            self._scratch.close()

    def _blocks(self, box: _Box) -> Iterator[_Box]:
        """Yield the blocks that a window touches, row by row, cut at the edge of the raster."""
        top, bottom, left, right = box
        tops = range(top - top % self._rows, bottom, self._rows)
        lefts = range(left - left % self._columns, right, self._columns)
        for row, column in product(tops, lefts):
            last = min(row + self._rows, self._file.height), min(column + self._columns, self._file.width)
            yield row, last[0], column, last[1]

    def _put(self, pixels: Bytes, box: _Box) -> None:
        top, bottom, left, right = box
        self._file.write(pixels, window=Window(left, top, right - left, bottom - top))

    def _add(self, pixels: Bytes, part: _Box, block: _Box) -> None:
        """Add a part of a block to what is there of it, and write the block if it is complete."""
        top, bottom, left, right = block
        whole = np.zeros((self._file.count, bottom - top, right - left), np.uint8)
        if block in self._slots:
            self._transfer(whole, self._slots[block], is_write=False)
        whole[:, part[0] - top : part[1] - top, part[2] - left : part[3] - left] = pixels
        filled = self._filled.pop(block, 0) + pixels[0].size
        if filled == whole[0].size:
            self._put(whole, block)
            if block in self._slots:
                self._free.append(self._slots.pop(block))
            return
        self._filled[block] = filled
        if block not in self._slots:
            self._slots[block] = self._free.pop() if self._free else len(self._slots)
        self._transfer(whole, self._slots[block], is_write=True)

    def _transfer(self, whole: Bytes, slot: int, is_write: bool) -> None:
        """Write the pixels of a block to its place in the scratch file, or read them from there."""
        left = whole.reshape(-1).data
        with naming_failed_writes(self._name):
            if self._scratch is None:
                self._scratch = tempfile.TemporaryFile(dir=self._name.parent, buffering=0)  # noqa: SIM115 - see close()
            self._scratch.seek(slot * self._file.count * self._rows * self._columns)
            while left:  # a file without a buffer may take fewer bytes than it is given, as on a full disk
                count = self._scratch.write(left) if is_write else self._scratch.readinto(left)
                if not count:
                    raise DiskFull(self._name, "it is shorter than what was written to it")
                left = left[count:]


def _cut(block: _Box, box: _Box) -> _Box:
    """Return what a window covers of a block."""
    return max(block[0], box[0]), min(block[1], box[1]), max(block[2], box[2]), min(block[3], box[3])
