"""A disk that fills up while a raster is predicted: said with path and reason, nothing half-written, and it goes on."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("resource")

from skystill.classes import DUBAI
from skystill.errors import DiskFull, write_errno
from skystill.predict import Predictor
from skystill.predict.polygons import write_polygons
from skystill.predict.summary import write_areas, write_overlay
from skystill.raster.source import RasterSource
from skystill.raster.spool import RowSpool
from skystill.settings import RasterSettings
from tests.channel_model import INFO, write_model
from tests.limited import files_of_at_most

RGB = np.random.default_rng(2).integers(0, 256, (3, 300, 5400), np.uint8)
RASTER = RasterSettings()


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(write_model(tmp_path / "m.onnx", replace(INFO, parameters=1, tile_size=256).to_metadata()))


@pytest.fixture
def strips(tmp_path: Path) -> Path:
    """A raster wider than two lanes, in strips: its rows go through the scratch file."""
    path = tmp_path / "in.tif"
    with rasterio.open(path, "w", driver="GTiff", height=300, width=5400, count=3, dtype="uint8", blockysize=5) as file:
        file.write(RGB)
    return path


@pytest.mark.parametrize(
    ("most_bytes", "named"),
    [
        (100, "settings.json"),
        (5_000, r"scratch file|out\.tif"),
        (100_000, r"scratch file|out\.tif"),
        (400_000, r"scratch file|\.unit|out\.tif"),
        (1_000_000, r"scratch file|\.unit|out\.tif"),
    ],
)
def test_a_prediction_stops_and_goes_on(
    most_bytes: int, named: str, predictor: Predictor, strips: Path, tmp_path: Path
) -> None:
    settings, folder = RasterSettings(tile=768), tmp_path / "results"
    with (
        files_of_at_most(most_bytes),
        pytest.raises(DiskFull, match=rf"cannot write \S*({named}).*: .*\. .* choose another --out"),
    ):
        predictor.predict(strips, folder / "out.tif", settings)
    assert [path.name for path in folder.iterdir()] == ([] if named == "settings.json" else [".unfinished-out.tif"])
    assert not list(folder.rglob(".part-*"))
    predictor.predict(strips, folder / "out.tif", settings, resume=True)
    with rasterio.open(folder / "out.tif") as file:
        assert np.array_equal(file.read(1), RGB.argmax(axis=0))


@pytest.mark.parametrize("missing", [1, 20, 1_000, 30_000, 60_000])
def test_a_cog_is_whole_or_not_there(missing: int, predictor: Predictor, tmp_path: Path) -> None:
    """GDAL writes its last blocks when it closes the file, and says nothing if that fails."""
    square = np.random.default_rng(1).integers(0, 256, (3, 1100, 1100), np.uint8)
    with rasterio.open(
        tmp_path / "in.tif", "w", driver="GTiff", height=1100, width=1100, count=3, dtype="uint8"
    ) as file:
        file.write(square)
    predictor.predict(tmp_path / "in.tif", tmp_path / "cog.tif", RasterSettings(cog=True))
    predictor.predict(tmp_path / "in.tif", tmp_path / "plain.tif")
    size, plain = ((tmp_path / name).stat().st_size for name in ("cog.tif", "plain.tif"))
    out = tmp_path / "out.tif"
    with files_of_at_most(size - missing), pytest.raises(DiskFull, match=r"cannot write \S*out\.tif"):
        predictor.predict(tmp_path / "in.tif", out, RasterSettings(cog=True))
    assert not out.exists() and size - missing >= plain - 30_000
    predictor.predict(tmp_path / "in.tif", out, RasterSettings(cog=True), resume=True)
    assert out.read_bytes() == (tmp_path / "cog.tif").read_bytes()


class Slow:
    """A file without a buffer that takes, and gives, at most 1,000 bytes at a time. Python allows both."""

    def __init__(self, file: object) -> None:
        self.file = file

    def write(self, content: memoryview) -> int:
        return int(self.file.write(content[:1000]))  # type: ignore[attr-defined]

    def readinto(self, buffer: memoryview) -> int:
        return int(self.file.readinto(buffer[:1000]))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def test_the_scratch_file_is_written_and_read_in_full(strips: Path, tmp_path: Path) -> None:
    spool = RowSpool(RasterSource(str(strips)), 100, [(0, 3000), (2900, 5400)], tmp_path)
    spool._file = Slow(spool._file)  # type: ignore[assignment]
    for top in range(0, 201, 50):
        for lane in ((0, 3000), (2900, 5400)):
            planes, valid = spool.read(top, top + 100, *lane)
            assert valid is None and np.array_equal(planes, RGB[:, top : top + 100, slice(*lane)])
    spool._file.truncate(10_000)
    with pytest.raises(DiskFull, match="scratch file: it is shorter than what was written to it"):
        spool.read(200, 300, 0, 3000)
    spool.close()


def polygons_as(suffix: str) -> Callable[[Path, Path], object]:
    return lambda raster, folder: write_polygons(raster, folder / f"out.{suffix}", DUBAI)


@pytest.mark.parametrize(
    ("write", "most_bytes"),
    [
        (polygons_as("gpkg"), 50_000),
        (polygons_as("gpkg"), 150_000),
        (polygons_as("geojson"), 100),
        (polygons_as("geojson"), 50_000),
        (lambda raster, folder: write_areas(raster, folder / "out.csv", DUBAI), 50),
        (lambda raster, folder: write_overlay(str(raster), raster, folder / "out.jpg", DUBAI, RASTER), 1000),
    ],
)
def test_what_stands_beside_a_raster(write: Callable[[Path, Path], object], most_bytes: int, tmp_path: Path) -> None:
    labels, folder = tmp_path / "labels.tif", tmp_path / "beside"
    with rasterio.open(
        labels, "w", driver="GTiff", height=300, width=300, count=1, dtype="uint8", crs="EPSG:32640",
        transform=rasterio.Affine(0.5, 0, 300_000, 0, -0.5, 2_800_000), nodata=255,
    ) as file:  # fmt: skip
        file.write(RGB[:1, :300, :300] % 6)
    with files_of_at_most(most_bytes), pytest.raises(DiskFull, match=r"cannot write \S*out\."):
        write(labels, folder)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_picture_is_not_turned_into_half_a_copy(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RGB[:, :, :600].transpose(1, 2, 0)).save(tmp_path / "in.png", exif=exif)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    with files_of_at_most(100_000), pytest.raises(Exception, match="upright") as raised:
        predictor.predict(tmp_path / "in.png", tmp_path / "out.png")
    assert raised.value.exit_code == 2  # type: ignore[attr-defined]
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, ""), "No space left on device. Make room there, or choose another --out."),
        (OSError(errno.EACCES, ""), "Permission denied. Get the permission"),
        (OSError(errno.EROFS, ""), "Read-only file system. That disk can only be read. Choose another --out."),
        (OSError(errno.ENAMETOOLONG, ""), "File name too long. Choose a shorter name"),
        (OSError(errno.ENOENT, ""), "No such file or directory. A folder on the way does not exist"),
        (OSError(errno.ENOTDIR, ""), "Not a directory. A part of that path is a file"),
        (OSError(errno.EISDIR, ""), "Is a directory. A folder has that name"),
        (RuntimeError("TIFFWrite: No space left on device"), "No space left on device. Make room"),
        (ValueError("I/O error: out (os error 28)"), "No space left on device. Make room"),
        (RuntimeError("something else"), "something else. See that the disk has room"),
    ],
)
def test_each_reason_has_its_remedy(error: Exception, words: str) -> None:
    assert f"cannot write a.tif: {words}" in str(DiskFull(Path("a.tif"), error))


def test_a_reason_behind_another_error_is_found() -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "")
        except OSError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error

    with pytest.raises(RuntimeError) as raised:
        fail()
    assert write_errno(raised.value) == errno.ENOSPC
    assert write_errno(RuntimeError("of something else")) is None


def test_scratch_files_are_elsewhere() -> None:
    words = str(DiskFull(Path("x"), OSError(errno.ENOSPC, ""), scratch=True))
    assert "set TMPDIR to another folder" in words and "--out" not in words
