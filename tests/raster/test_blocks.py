"""Blocks of a raster are written once, however the windows are cut in which their pixels come."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from skystill.errors import DiskFull
from skystill.raster.blocks import BlockWriter

BLOCK = 64


class Recorded:
    """A raster, and the windows that are written into it."""

    def __init__(self, file: DatasetWriter) -> None:
        self._file, self.windows = file, list[tuple[int, int, int, int]]()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, array: np.ndarray, window: Window) -> None:
        self.windows.append((window.row_off, window.col_off, window.height, window.width))
        self._file.write(array, window=window)


def created(path: Path, height: int, width: int, bands: int) -> Recorded:
    form = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "band"}
    return Recorded(
        rasterio.open(path, "w", height=height, width=width, count=bands, dtype="uint8", compress="deflate", **form)
    )


def cuts(height: int, width: int, rows: int, columns: int, order: str) -> list[tuple[int, int, int, int]]:
    """Windows of some rows and columns: in lanes from top to bottom, row by row, or in no order."""
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    if order == "lanes":
        places = [(top, left) for left in range(0, width, columns) for top in range(0, height, rows)]
    elif order == "any":
        random.Random(1).shuffle(places)
    return [(top, left, min(rows, height - top), min(columns, width - left)) for top, left in places]


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns", "order"),
    [
        (300, 260, 40, 100, "lanes"),
        (300, 260, 40, 100, "rows"),
        (300, 260, 40, 100, "any"),
        (300, 260, 96, 64, "lanes"),  # only rows are parts of blocks
        (300, 260, 64, 96, "rows"),  # only columns are
        (300, 260, 300, 33, "lanes"),
        (130, 130, 7, 7, "any"),  # 100 windows for a block
        (50, 30, 20, 30, "rows"),  # smaller than a block
    ],
)
def test_each_block_is_written_once(
    tmp_path: Path, height: int, width: int, rows: int, columns: int, order: str
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (2, height, width), np.uint8)
    file = created(tmp_path / "a.tif", height, width, 2)
    writer = BlockWriter(file, tmp_path)  # type: ignore[arg-type]
    for top, left, down, across in cuts(height, width, rows, columns, order):
        writer.write(array[:, top : top + down, left : left + across], top, left)
    writer.close()
    with rasterio.open(tmp_path / "a.tif") as found:
        assert np.array_equal(found.read(), array)
    count = np.zeros((height, width), int)
    for top, left, down, across in file.windows:
        count[top : top + down, left : left + across] += 1
        assert top % BLOCK == 0 and (down % BLOCK == 0 or top + down == height)
        assert left % BLOCK == 0 and (across % BLOCK == 0 or left + across == width)
    assert (count == 1).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif"]  # the scratch file has no name


@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (128, 260), (300, 260)])
def test_windows_of_whole_blocks_are_written_as_they_are(tmp_path: Path, rows: int, columns: int) -> None:
    windows = cuts(300, 260, rows, columns, "lanes")
    file = created(tmp_path / "a.tif", 300, 260, 1)
    writer = BlockWriter(file, tmp_path / "gone")  # type: ignore[arg-type]
    for top, left, down, across in windows:
        writer.write(np.zeros((1, down, across), np.uint8), top, left)
    writer.close()
    assert file.windows == windows


def test_the_scratch_file_is_as_large_as_what_waits(tmp_path: Path) -> None:
    """In lanes, the blocks between two lanes wait for the second one. Their places are used again."""
    file = created(tmp_path / "a.tif", 640, 640, 1)
    writer = BlockWriter(file, tmp_path)  # type: ignore[arg-type]
    most = 0
    for top, left, down, across in cuts(640, 640, 32, 96, "lanes"):
        writer.write(np.zeros((1, down, across), np.uint8), top, left)
        assert writer._scratch is not None
        most = max(most, writer._scratch.seek(0, 2))
    assert most <= 12 * BLOCK * BLOCK  # ten between the lanes, and those of this row
    writer.close()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, place: int) -> None: ...

        def write(self, content: object) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None: ...

    monkeypatch.setattr("skystill.raster.blocks.tempfile.TemporaryFile", lambda **options: Full())
    writer = BlockWriter(created(tmp_path / "a.tif", 300, 260, 1), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DiskFull, match="No space left"):
        writer.write(np.zeros((1, 10, 10), np.uint8), 0, 0)
    writer.close()


def test_a_file_that_takes_few_bytes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    class Slow:
        def __init__(self, **options: object) -> None:
            self._file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
            self._sizes = itertools.cycle((1, 100, 3000))

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def write(self, content: memoryview) -> int:
            return self._file.write(content[: next(self._sizes)])

        def readinto(self, content: memoryview) -> int:
            found = self._file.read(min(len(content), next(self._sizes)))
            content[: len(found)] = found
            return len(found)

    monkeypatch.setattr("skystill.raster.blocks.tempfile.TemporaryFile", Slow)
    array = np.random.default_rng(0).integers(0, 256, (1, 100, 70), np.uint8)
    writer = BlockWriter(created(tmp_path / "a.tif", 100, 70, 1), tmp_path)  # type: ignore[arg-type]
    for top, left, down, across in cuts(100, 70, 30, 25, "any"):
        writer.write(array[:, top : top + down, left : left + across], top, left)
    writer.close()
    with rasterio.open(tmp_path / "a.tif") as found:
        assert np.array_equal(found.read(), array)
