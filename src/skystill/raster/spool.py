"""Windows of a raster that is stored in whole-width blocks: decoded once, with the latest rows kept on disk.

A striped raster with a width of 50,000 pixels takes 150 kB per row. The rows that tiles need would take a quarter of a
gigabyte of memory. On disk they stay in the system's cache, whose memory the system can reclaim.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.errors import DiskFull
from skystill.raster.source import Planes, RasterSource, Valid
from skystill.run_folder import naming_failed_writes

_DECODE_BYTES = 4 * 2**20


def rows_at_a_time(source: RasterSource) -> int:
    """Return how many rows of a raster are decoded at a time: some megabytes, in whole blocks."""
    block_rows = max(1, round(source.block_shape[0] / source.factors[0]))
    wanted = max(1, _DECODE_BYTES // (source.planes * source.kind.itemsize * source.width))
    return int(-(-wanted // block_rows) * block_rows)


class RowSpool:
    """Decodes a source once from top to bottom, and reads windows of its lanes from a scratch file.

    Windows must be read in an order in which none begins above the one before it. On disk each lane has the planes
    of the source, and one plane of bytes for which pixels are valid. Each plane is a ring buffer of `capacity` rows. A
    window therefore takes one or two long reads for each plane, however many rows it has.

    Args:
        source: the raster to decode.
        rows: largest number of rows of a window.
        lanes: first column of the windows, and the column after their last one, for each lane.
        folder: folder of the scratch file. The file has no name there, and the system deletes it when the process ends.

    The attributes `planes` and `kind` are those of the source.
    """

    def __init__(self, source: RasterSource, rows: int, lanes: Sequence[tuple[int, int]], folder: Path) -> None:
        self._source = source
        self.planes, self.kind = source.planes, source.kind
        pixel_bytes = self.planes * self.kind.itemsize
        self._step = rows_at_a_time(source)
        self._capacity = rows + self._step
        self._decoded = 0
        self._masked: list[tuple[int, int]] = []  # decoded rows in which some pixels are not valid
        self._begins: dict[tuple[int, int], int] = {}
        place = 0
        for lane in sorted(set(lanes)):
            self._begins[lane] = place
            place += (pixel_bytes + 1) * self._capacity * (lane[1] - lane[0])
        self._name = folder / "scratch file"  # for messages
        with naming_failed_writes(self._name):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[Planes, Valid | None]:
        """Read a window, as `RasterSource.read` does.

        Args:
            top: first row, in target pixels.
            bottom: the row after the last one.
            left: first column of one of the lanes.
            right: the column after the last one of the same lane.

        Returns:
            planes (B, H, W) in the data type of the source, and valid (H, W) bool, False where there is no data.
            `valid` is None if all pixels are valid.

        Raises:
            DiskFull: the disk of the scratch file is full.
        """
        if self._decoded == 0:
            self._decoded = top // self._step * self._step  # a resumed prediction begins in the middle
        while self._decoded < bottom:
            self._decode()
        planes = np.empty((self.planes, bottom - top, right - left), self.kind)
        for plane in range(self.planes):
            self._load(planes[plane], (left, right), plane, top)
        return planes, self._load_valid(top, bottom, (left, right))

    def close(self) -> None:
        """Close the scratch file, which deletes it."""
        self._file.close()

    def _decode(self) -> None:
        top, bottom = self._decoded, min(self._decoded + self._step, self._source.height)
        read, valid = self._source.read(top, bottom, 0, self._source.width)
        planes = list(read)
        if valid is not None:
            planes.append(valid.view(np.uint8))
            self._masked.append((top, bottom))
        for lane in self._begins:
            for plane, values in enumerate(planes):
                part = np.ascontiguousarray(values[:, lane[0] : lane[1]])
                for place, rows in self._stretches(lane, plane, top, bottom):
                    self._write(place, part[rows])
        self._decoded = bottom

    def _write(self, place: int, values: npt.NDArray[Any]) -> None:
        """Write at an offset. A file without a buffer may take fewer bytes than it is given, as on a full disk."""
        left = values.reshape(-1).view(np.uint8).data
        with naming_failed_writes(self._name):
            self._file.seek(place)
            while left:
                left = left[self._file.write(left) :]

    def _load(self, values: npt.NDArray[Any], lane: tuple[int, int], plane: int, top: int) -> None:
        """Fill `values` (rows from `top` on, columns of the lane) from the scratch file."""
        for place, rows in self._stretches(lane, plane, top, top + len(values)):
            self._file.seek(place)
            left = values[rows].reshape(-1).view(np.uint8).data
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise DiskFull(self._name, "it is shorter than what was written to it")
                left = left[count:]

    def _load_valid(self, top: int, bottom: int, lane: tuple[int, int]) -> Valid | None:
        self._masked = [(start, end) for start, end in self._masked if end > top]  # no later one begins above it
        masked = [(max(start, top), min(end, bottom)) for start, end in self._masked if start < bottom]
        if not masked:
            return None
        valid = np.ones((bottom - top, lane[1] - lane[0]), np.uint8)
        for start, end in masked:
            self._load(valid[start - top : end - top], lane, self.planes, start)
        return None if valid.all() else valid.astype(bool)

    def _stretches(self, lane: tuple[int, int], plane: int, top: int, bottom: int) -> list[tuple[int, slice]]:
        """Return byte offsets in the file, and the rows of the window that are stored there.

        The rows lie in one stretch, or in two where the ring buffer wraps around. The plane after the last one of the
        source says which pixels are valid.
        """
        pixels = lane[1] - lane[0]
        begin = self._begins[lane] + plane * self.kind.itemsize * self._capacity * pixels
        width = pixels * (self.kind.itemsize if plane < self.planes else 1)  # in bytes
        slot = top % self._capacity
        first = min(bottom - top, self._capacity - slot)
        found = [(begin + slot * width, slice(0, first))]
        return found if first == bottom - top else [*found, (begin, slice(first, bottom - top))]
