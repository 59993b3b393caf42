"""The ground resolution of training images."""

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from skystill.data.resolution import ground_resolution, with_resolution
from skystill.raster.input_spec import RGB

FOOT = 1200 / 3937  # US survey foot in metres
EQUATOR_1E_5 = math.radians(1e-5) * math.sqrt(6_378_137 * 6_335_439)  # a square of 1e-5 degrees at the equator


def scale_at_the_pole(true_at: float) -> float:
    """EPSG guidance note 7-2, polar stereographic (variant B)."""
    e, sine = 0.0818191908426, math.sin(math.radians(true_at))
    t = math.tan(math.pi / 4 - math.radians(true_at) / 2) * ((1 + e * sine) / (1 - e * sine)) ** (e / 2)
    m = math.cos(math.radians(true_at)) / math.sqrt(1 - (e * sine) ** 2)
    return m * math.sqrt((1 + e) ** (1 + e) * (1 - e) ** (1 - e)) / (2 * t)


POLE = scale_at_the_pole(71)  # 0.9727


def mercator(latitude: float) -> float:
    return 6_378_137 * math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2))


def geotiff(path: Path, crs: object, transform: Affine, shape: tuple[int, int] = (30, 40)) -> Path:
    size = {"height": shape[0], "width": shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **size) as file:
        file.write(np.zeros((3, *shape), np.uint8))
    return path


def utm(path: Path, metres: float) -> Path:
    return geotiff(path, "EPSG:32640", Affine(metres, 0, 3e5, 0, -metres, 2.7e6))


# Radii of curvature of WGS 84 in metres. At 60 degrees: meridian 6,383,454, prime vertical 6,394,209. The scale of web
# Mercator is 6,378,137 / (radius * cos 60) across and 6,378,137 / (6,383,454 * cos 60) along the meridian.
@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32640", Affine(0.5, 0, 3e5, 0, -0.5, 2.7e6), 0.5),
        ("EPSG:32640", Affine(0.5, 0, 5e5, 0, -0.5, 2.7e6), 0.5),  # scale 0.9996
        ("EPSG:32640", Affine(0, 0.3, 3e5, 0.3, 0, 2.7e6), 0.3),  # turned by 90 degrees
        ("EPSG:32640", Affine(0.2, 0, 3e5, 0, -0.8, 2.7e6), 0.4),  # a square of the same area
        ("EPSG:2263", Affine(1, 0, 1e6, 0, -1, 2e5), FOOT),
        ("EPSG:3857", Affine(1, 0, 1e6, 0, -1, mercator(60) + 15), math.sqrt(6_394_209 * 6_383_454) / 6_378_137 / 2),
        ("EPSG:3857", Affine(1, 0, 1e6, 0, -1, 15), math.sqrt(6_335_439 / 6_378_137)),  # the equator
        ("EPSG:4326", Affine(1e-5, 0, 30, 0, -1e-5, 1.5e-4), EQUATOR_1E_5),
        ("EPSG:4326", Affine(1e-5, 0, 179.9998, 0, -1e-5, 1.5e-4), EQUATOR_1E_5),
        ("EPSG:3995", Affine(10, 0, -200, 0, -10, 150), 10 / POLE),  # the North Pole
        (None, Affine(0.5, 0, 3e5, 0, -0.5, 2.7e6), None),
        ('LOCAL_CS["site",UNIT["metre",1]]', Affine(1, 0, 5, 0, -1, 8), None),
        ("+proj=eqc +R=1737400 +units=m", Affine(1, 0, 5, 0, -1, 8), None),  # the Moon
    ],
)  # fmt: skip
def test_it_is_metres_on_the_ground(crs: object, transform: Affine, expected: float | None, tmp_path: Path) -> None:
    found = ground_resolution(geotiff(tmp_path / "a.tif", crs, transform))
    assert found == (None if expected is None else pytest.approx(expected, rel=2e-6))


def test_pictures_have_none(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif")
    assert ground_resolution(tmp_path / "a.png") is None and ground_resolution(tmp_path / "a.tif") is None


@pytest.mark.parametrize(
    ("metres", "expected", "said"),
    [
        ((0.25, 0.25, 0.25), 0.25, ""),
        ((0.3, 0.31, 0.33), 0.31, ""),  # 0.33 is 1.1 times 0.3
        ((0.3, 0.32), 0.31, ""),
        ((0.3, 0.3, 0.34), None, "have 0.3 to 0.34 m per pixel"),
        ((0.3, None, 0.3), None, "2 of 3 training images carry a ground resolution"),
        ((None, None), None, ""),
        ((), None, ""),
    ],
)
def test_the_training_images_must_agree(
    metres: tuple[float | None, ...], expected: float | None, said: str, tmp_path: Path
) -> None:
    images = []
    for index, one in enumerate(metres):
        path = tmp_path / (f"{index}.png" if one is None else f"{index}.TIF")
        images.append(path if one is None else utm(path, one))
        if one is None:
            Image.new("RGB", (4, 4)).save(path)
    spec, notes = with_resolution(RGB, images)
    assert spec.resolution_m == (None if expected is None else pytest.approx(expected))
    known = [one for one in metres if one is not None]
    assert spec.resolution_range_m == (pytest.approx((min(known), max(known))) if known else None)
    assert len(notes) == bool(said)
    if said:
        assert said in notes[0] and "--resolution" in notes[0]
