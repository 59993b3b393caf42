"""Files whose texts, metadata or tables of images would take minutes or gigabytes are refused before GDAL has them."""

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.raster.around import OF_FILES, too_much_around
from skystill.raster.opening import RasterRefused, open_raster
from tests.around import chunk, png_with, tiff_with

PACKED = chunk(b"zTXt", b"k\0\0" + zlib.compress(np.random.default_rng(0).bytes(50_000)))
TOO_MUCH: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "packed texts": ("a.png", lambda: png_with(22 * PACKED), "1,024 kB of texts"),
    "packed international texts": (
        "a.png", lambda: png_with(12 * chunk(b"iTXt", b"k\0\1\0\0\0" + bytes(100_000))), "1,024 kB of texts"
    ),
    "long texts": ("a.png", lambda: png_with(chunk(b"tEXt", b"k\0" + 33 * 2**20 * b"a")), "32,768 kB of texts"),
    "many chunks": ("a.png", lambda: png_with(100_001 * chunk(b"tIME", b"")), "100,000 chunks"),
    "metadata": ("a.tif", lambda: tiff_with(33, 1), "32,768 kB of texts"),
    "metadata of a BigTIFF": ("a.tif", lambda: tiff_with(33, 1, ">", big=True), "32,768 kB of texts"),
    "many images": ("a.tif", lambda: tiff_with(0, 10_001), "10,000 images"),
    "images that go round": ("a.tif", lambda: tiff_with(0, 2, ">", big=True, again=True), "10,000 images"),
    "many tags": ("a.tif", lambda: tiff_with(1025, 1), "1,025 tags"),
    "a PNG called a JPEG": ("a.jpg", lambda: png_with(22 * PACKED), "1,024 kB of texts"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_with_what_it_is(name: str, tmp_path: Path) -> None:
    file, make, words = TOO_MUCH[name]
    (tmp_path / file).write_bytes(make())
    tracemalloc.start()
    with pytest.raises(RasterRefused, match=words):
        open_raster(tmp_path / file)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_what_people_have_is_opened(tmp_path: Path) -> None:
    """Metadata of some megabytes, overviews, texts behind the pixels; a table that leads nowhere is left to GDAL."""
    with_texts = png_with(10 * PACKED + chunk(b"tEXt", b"k\0" + 5_000_000 * b"a"))
    (tmp_path / "texts.png").write_bytes(with_texts[:-12] + 100 * PACKED + with_texts[-12:])
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "pages.tif", save_all=True, append_images=[
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)) for _ in range(90)
    ])  # fmt: skip
    with rasterio.open(
        tmp_path / "tags.tif", "w", driver="GTiff", height=600, width=600, count=1, dtype="uint8", tiled=True
    ) as file:
        file.write(np.zeros((600, 600), np.uint8), 1)
        file.update_tags(TEXT=3_000_000 * "b")
        file.build_overviews([2, 4])
    for name in ("texts.png", "pages.tif", "tags.tif"):
        assert too_much_around(tmp_path / name) is None
        with open_raster(tmp_path / name) as opened:
            assert opened.count in (1, 3)
    (tmp_path / "nowhere.tif").write_bytes(b"II*\0\xff\xff\xff\x7f")
    assert too_much_around(tmp_path / "nowhere.tif", OF_FILES) is None


@pytest.mark.parametrize("place", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_table_beyond_every_file_is_left_to_gdal(tmp_path: Path, place: int) -> None:
    (tmp_path / "a.tif").write_bytes(b"II+\0\x08\0\0\0" + place.to_bytes(8, "little") + bytes(40))
    assert too_much_around(tmp_path / "a.tif") is None
    with pytest.raises(RasterRefused, match="Failed to read directory"):
        open_raster(tmp_path / "a.tif")
