"""Images and masks are bounded by the size that they declare, and nothing but files is opened.

Memory and time are those of real commands, because what a file makes GDAL or Pillow allocate is seen nowhere else.
"""

import os
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.data.mask_files import read_mask
from skystill.errors import DataError, SettingsError
from skystill.model.bundled import bundled_model
from skystill.raster.picture import read_whole
from skystill.raster.size_cap import DEFAULT_VALUES, VARIABLE, check_size, max_image_values
from tests.measured import run

PLAIN_BYTES = 220 * 2**20  # a data check of tiny files takes about 130 MiB


def write_png(path: Path, side: int, color_type: int) -> Path:
    """A PNG of zeros of `side` x `side` pixels: 2 MB for 13,000 in three bands."""
    bands = {0: 1, 2: 3}[color_type]
    packer = zlib.compressobj(9)
    row = bytes(1 + side * bands)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, color_type, 0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def write_sparse(path: Path, side: int, bands: int, dtype: str = "uint8", tile: int = 256) -> Path:
    """A TIFF that declares pixels and stores none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"tiled": True, "blockxsize": tile, "blockysize": tile, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", "GTiff", side, side, bands, dtype=dtype, compress="deflate", **options):
        pass
    return path


IMAGES: dict[str, Callable[[Path], Path]] = {
    "png of three bands": lambda folder: write_png(folder / "big.png", 13_000, 2),
    "grey png": lambda folder: write_png(folder / "big.png", 13_000, 0),  # read as three colours
    "sparse tiff": lambda folder: write_sparse(folder / "big.tif", 40_000, 3),
    "sparse tiff of floats": lambda folder: write_sparse(folder / "big.tif", 40_000, 1, "float32"),
    "small tiff in one huge tile": lambda folder: write_sparse(folder / "big.tif", 64, 3, tile=20_000),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("role", ["images", "masks"])
def test_data_check_refuses_what_is_declared_too_large_before_it_is_decoded(
    kind: str, role: str, pairs_folder: Path
) -> None:
    made = IMAGES[kind](pairs_folder / role)
    beside = pairs_folder / ("masks" if role == "images" else "images") / "big.png"
    Image.new("RGB", (40, 36), (255, 0, 0)).save(beside)
    code, text, peak = run("data", "check", pairs_folder)
    assert code == 2, text
    said = r".* (has \d\d,000 x \d\d,000 pixels|is stored in blocks of 20000x20000 pixels)"
    assert re.search(re.escape(made.name) + said, text.replace("\n", " ")), text
    assert VARIABLE in text and "GiB when decoded" in text and "Traceback" not in text
    assert peak < PLAIN_BYTES, peak


@pytest.mark.parametrize(
    ("height", "width", "bands", "fits"),
    [(9459, 9459, 3, True), (9460, 9460, 3, False), (2**14, 2**14, 1, True), (2**14, 2**14 + 1, 1, False),
     (2**31, 2**31, 64, False), (0, 5, 3, True)],
)  # fmt: skip
def test_the_default_is_2_to_the_28(height: int, width: int, bands: int, fits: bool) -> None:
    assert DEFAULT_VALUES == 268_435_456
    if fits:
        check_size("a.tif", height, width, bands)
    else:
        with pytest.raises(DataError, match=rf"{VARIABLE}={height * width * bands} "):
            check_size("a.tif", height, width, bands)


def test_the_message_says_what_it_takes() -> None:
    with pytest.raises(DataError, match=r"2\.0 GiB when decoded"):  # 2^14 * 2^15 * 1 * 4 bytes = 2^31
        check_size("a.tif", 2**14, 2**15, 1, 4)


def test_the_cap_can_be_lowered_and_raised(pairs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = pairs_folder / "images/0.png", pairs_folder / "masks/0.png"  # 40 x 36 x 3 = 4,320 values
    monkeypatch.setenv(VARIABLE, "4319")
    for read, path in ((read_whole, image), (read_mask, mask)):
        with pytest.raises(DataError, match=r"40 x 36 pixels.*4320 in the environment"):
            read(path)
    assert read_whole(image, (0, 10, 0, 10)).image.shape == (10, 10, 3)  # a window is not the whole
    monkeypatch.setenv(VARIABLE, "4320")
    assert read_whole(image).image.shape == (36, 40, 3)
    assert read_mask(mask).colors.shape == (36, 40, 3)
    tiff = pairs_folder / "mask.tif"
    with rasterio.open(tiff, "w", "GTiff", 40, 36, 1, dtype="uint8") as file:
        file.write(np.ones((1, 36, 40), np.uint8))
    assert read_mask(tiff).index is not None
    monkeypatch.setenv(VARIABLE, "4319")
    with pytest.raises(DataError, match="40 x 36 pixels"):
        read_mask(tiff)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", "1" * 30, "²", "1_000"])
def test_a_cap_that_is_no_number_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch, pairs_folder: Path) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(SettingsError, match=VARIABLE):
        max_image_values()
    with pytest.raises(SettingsError, match=VARIABLE):
        read_whole(pairs_folder / "images/0.png")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def linked_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has at most 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


SPECIAL = {"pipe": fifo, "link to a pipe": linked_fifo, "device": device, "socket": unix_socket}
BESIDE = ["images/0.png.aux.xml", "images/0.wld", "images/0.png.msk", "images/0.pgw"]
PLACES = [(kind, f"{role}/0.png") for kind in SPECIAL for role in ("images", "masks")] + [("pipe", p) for p in BESIDE]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_a_pipe_a_socket_or_a_device_is_refused_by_name(kind: str, place: str, pairs_folder: Path) -> None:
    path = pairs_folder / place
    path.unlink(missing_ok=True)
    SPECIAL[kind](path)
    code, text, _ = run("data", "check", pairs_folder)
    assert code == 2, text
    words = {"pipe": "a named pipe", "link to a pipe": "a named pipe", "device": "a device", "socket": "a socket"}
    said = re.escape(path.name) + r"(, which is not what its name says: it)? is " + words[kind]
    assert re.search(said, text), text
    assert "Traceback" not in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("how", ["file", "folder", "pattern", "source of a vrt"])
def test_predict_refuses_a_pipe(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / "photo.jpg")
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{folder}/photo.jpg</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    given = {"file": folder / "photo.jpg", "folder": folder, "pattern": f"{folder}/*.jpg"}.get(how, tmp_path / "a.vrt")

    code, text, _ = run("predict", "--model", bundled_model(), given, "--out", tmp_path / "out")
    assert code == 2, text
    assert re.search(r"photo\.jpg(, which is not what its name says: it)? is a named pipe", text), text
    assert not list((tmp_path / "out").glob("*.png"))


def test_wide_pixels_count_by_their_bytes() -> None:
    check_size("a.tif", 2**13, 2**14, 1, 4)  # 2^27 values of 4 bytes are 2^29 bytes
    check_size("a.tif", 2**13, 2**13, 4, 2)  # 2^28 values of 2 bytes
    with pytest.raises(DataError, match=rf"{VARIABLE}={2**15 * 2**13 + 2**14} "):  # half the bytes of 2^13 x (2^14 + 1)
        check_size("a.tif", 2**13, 2**14 + 1, 1, 4)


def test_a_small_jpeg_cannot_hold_a_quarter_of_a_gigapixel(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    struct.pack_into(">HH", content, place + 5, 16_000, 16_000)
    path.write_bytes(content)
    code, text, peak = run("predict", path, "--model", bundled_model(), "--out", tmp_path / "out.tif")
    assert code == 2 and "says it has 16000x16000 pixels" in text and "it was cut" in text, text
    assert peak < 2 * PLAIN_BYTES and not (tmp_path / "out.tif").exists()


def test_a_grid_in_text_that_is_broken_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    rows = [" ".join(map(str, row)) for row in np.arange(80 * 60).reshape(80, 60).tolist()]
    head = "ncols 60\nnrows 80\nxllcorner 0\nyllcorner 0\ncellsize 1\n"
    whole, broken = tmp_path / "whole.asc", tmp_path / "broken.asc"
    whole.write_text(head + "\n".join(rows) + "\n")
    rows[20] = rows[20][:40] + "\0\0\1\0" + rows[20][44:]
    broken.write_text(head + "\n".join(rows) + "\n")
    code, text, _ = run("predict", whole, "--model", bundled_model(), "--out", tmp_path / "whole.tif")
    assert code == 0, text
    code, text, peak = run("predict", broken, "--model", bundled_model(), "--out", tmp_path / "out.tif")
    assert code == 2 and "row 20 of 80 cannot be read" in text, text
    assert peak < 2 * PLAIN_BYTES and not (tmp_path / "out.tif").exists()
