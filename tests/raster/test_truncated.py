"""Files that end too early: what is missing is named, and has no data. It is never grey or noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skystill.raster.source import RasterSource, gdal_environment

_SIDE = 320

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": (".jpg", {"quality": 95, "subsampling": 0}),
    "progressive jpeg": (".jpg", {"quality": 95, "subsampling": 0, "progressive": True}),
    "jpeg with restart markers": (".jpg", {"quality": 95, "subsampling": 0, "restart_marker_rows": 1}),
    "png": (".png", {}),
    "bmp": (".bmp", {}),
    "webp": (".webp", {"lossless": True}),
    "tiff": (".tif", {}),
}


@pytest.fixture(scope="module")
def pixels() -> "np.ndarray[Any, np.dtype[np.uint8]]":
    squares = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    return squares.repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize("rows", [_SIDE, 64, 50])
@pytest.mark.parametrize("kind", _KINDS)
def test_what_is_missing_of_a_picture_has_no_data(
    kind: str, rows: int, pixels: "np.ndarray[Any, np.dtype[np.uint8]]", tmp_path: Path
) -> None:
    suffix, options = _KINDS[kind]
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(pixels).save(path, **options)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9, 0.99):  # 0.1 of the JPEG ends in its first rows of blocks
        path.write_bytes(whole[: int(part * len(whole))])
        read, valid, source = _read(path, rows)
        missing = int((~valid).sum())
        assert source.damaged
        assert source.damaged_pixels == missing >= _SIDE  # that many pixels are named, once
        wrong = np.abs(read.astype(int) - pixels.transpose(2, 0, 1)).max(0) > 60  # JPEG itself changes less
        assert not (wrong & valid).any()


@pytest.mark.parametrize("kind", _KINDS)
def test_a_whole_picture_is_not_damaged(
    kind: str, pixels: "np.ndarray[Any, np.dtype[np.uint8]]", tmp_path: Path
) -> None:
    suffix, options = _KINDS[kind]
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(pixels).save(path, **options)
    read, valid, source = _read(path, 50)
    assert valid.all() and not source.damaged
    assert np.abs(read.astype(int) - pixels.transpose(2, 0, 1)).max() <= 60


def test_the_loss_that_a_stopped_process_found_is_not_counted_twice(
    pixels: "np.ndarray[Any, np.dtype[np.uint8]]", tmp_path: Path
) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with gdal_environment():
        first, second = RasterSource(str(path)), RasterSource(str(path))
        first.read(0, _SIDE, 0, _SIDE)
        second.take_damage(first.damage.all(), first.reason)
        _, valid = second.read(250, _SIDE, 0, _SIDE)
    assert valid is not None and not valid.any()
    assert (second.damaged, second.damaged_pixels) == (first.damaged, first.damaged_pixels)


def test_a_picture_of_16_bits_that_is_cut_before_its_scale_is_sampled(
    pixels: "np.ndarray[Any, np.dtype[np.uint8]]", tmp_path: Path
) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    planes, valid, source = _read(path, 64)
    assert not valid[-1].any() and source.damaged and not planes[:, -1].any()


def _read(path: Path, rows: int) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]", RasterSource]:
    planes, valid = np.zeros((3, _SIDE, _SIDE), np.uint8), np.ones((_SIDE, _SIDE), bool)
    with gdal_environment():
        source = RasterSource(str(path))
        for top in range(0, _SIDE, rows):
            bottom = min(top + rows, _SIDE)
            planes[:, top:bottom], known = source.read(top, bottom, 0, _SIDE)
            valid[top:bottom] = True if known is None else known
        source.close()
    return planes, valid, source
