"""TIFFs with tags that few programs write, in the page and in `skystill predict`."""

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import warp

from skystill.raster.bands import choose_bands
from tests.web.browser import Browser
from tests.web.images import scene, write_tiff
from tests.web.test_page import predicted, saved

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 60, 70
SHORT, DOUBLE = ("H", 3), ("d", 12)
SCALE, TIE, MATRIX, KEYS = 33550, 33922, 34264, 34735
PLACED = {
    SCALE: (DOUBLE, [0.5, 0.5, 0.0]),
    TIE: (DOUBLE, [0.0, 0.0, 0.0, 330000.0, 2790000.0, 0.0]),
    KEYS: (SHORT, [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32640]),
}
OTHER_PLACE = {MATRIX: (DOUBLE, [1.0, 0, 0, 500000, 0, -1.0, 0, 100000, 0, 0, 0, 0, 0, 0, 0, 1.0])}
IN_FEET = {KEYS: (SHORT, [1, 1, 0, 4, *PLACED[KEYS][1][4:], 3076, 0, 1, 9002])}
NAMES = ("blue", "green", "red")  # against their order in the file


def pixels() -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8 with a square of zeros and one of ones."""
    planes = scene(HEIGHT, WIDTH).transpose(1, 2, 0).copy()
    planes[10:20, 10:30], planes[30:40, 10:30] = 0, 1
    return planes


def write_tags(path: Path, tags: dict[int, Any], content: bytes) -> Path:
    """A TIFF of one strip with these tags: (kind, values) each, or a text."""
    own = {
        256: [WIDTH], 257: [HEIGHT], 258: [8] * 3, 259: [1], 262: [2], 273: [0], 277: [3], 278: [HEIGHT],
        279: [len(content)], 284: [1],
    }  # fmt: skip
    entries: dict[int, Any] = {**{tag: (SHORT, values) for tag, values in own.items()}, **tags}
    entries[279] = (SHORT, [len(content)])

    def packed(value: Any) -> tuple[int, int, bytes]:
        if isinstance(value, str):
            return 2, len(value) + 1, value.encode() + b"\0"
        (letter, number), values = value
        return number, len(values), struct.pack(f"<{len(values)}{letter}", *values)

    raw = {tag: packed(value) for tag, value in sorted(entries.items())}
    free = 8 + 2 + 12 * len(raw) + 4
    entries[273] = (SHORT, [free + sum(len(one) for _, _, one in raw.values() if len(one) > 4)])
    raw[273] = packed(entries[273])
    table, beyond = struct.pack("<H", len(raw)), b""
    for tag, (kind, count, one) in raw.items():
        place = one.ljust(4, b"\0") if len(one) <= 4 else struct.pack("<I", free + len(beyond))
        table += struct.pack("<HHI", tag, kind, count) + place
        beyond += one if len(one) > 4 else b""
    path.write_bytes(b"II*\0\x08\0\0\0" + table + bytes(4) + beyond + content)
    return path


def described(before: str = "", after: str = "", equals: str = '="{}"', names: tuple[str, ...] = NAMES) -> str:
    """Metadata of GDAL that call the bands by these names."""
    name, sample, role = (f"{key}{equals}" for key in ("name", "sample", "role"))
    heads = [
        f"<Item {name.format('DESCRIPTION')} {sample.format(i)} {role.format('description')}>"
        for i in range(len(names))
    ]
    items = [f"{head}{one}</Item>" for head, one in zip(heads, names, strict=True)]
    return f"<GDALMetadata>{before}{''.join(items)}{after}</GDALMetadata>"


TAGS: dict[str, dict[int, Any]] = {
    "a predictor without compression": {317: (SHORT, [2])},
    "nodata, no number of another language": {42113: "1.#QNAN"},
    "nodata, with a comma": {42113: "1,5"},
    "nodata, a word": {42113: "none"},
    "nodata, with spaces": {42113: " 1 "},
    "names between other marks": {42112: described(equals="='{}'")},
    "names in a comment": {42112: described("<!-- ", " -->")},
    "names in letters by number": {42112: described(names=("&#98;lue", "green", "&#x72;ed"))},
    "names as they are": {42112: described(names=("<![CDATA[blue]]>", "green", "red"))},
    "a height below zero": {**PLACED, SCALE: (DOUBLE, [0.5, -0.5, 0.0])},
    "two places": {**PLACED, **OTHER_PLACE},
    "a matrix": {KEYS: PLACED[KEYS], **OTHER_PLACE},
    "two points": {**PLACED, TIE: (DOUBLE, [*PLACED[TIE][1], 10.0, 10.0, 0.0, 330005.0, 2789995.0, 0.0])},
    "a point within": {**PLACED, TIE: (DOUBLE, [10.0, 20.0, 0.0, 330000.0, 2790000.0, 0.0])},
    "no size of pixels": {**PLACED, SCALE: (DOUBLE, [0.0, 0.0, 0.0])},
    "feet": {**PLACED, **IN_FEET},
}
CALLED = (
    ("B02", "B03", "B04"), ("NIR", "Red", "Green"), ("NIR", "", ""), ("Band 1", "band_2", "3"), ("2", "Band 1", "3"),
    ("R", "G", "B"), ("blue", "green", "red"), ("red", "green", "blue"), ("", "", ""), ("", "", "", "NIR"),
)  # fmt: skip


def test_rare_tags_mean_what_they_mean_to_predict(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.open(pages["channel"])
    for number, (name, tags) in enumerate(TAGS.items()):
        image = write_tags(tmp_path / f"{number}.tif", tags, pixels().tobytes())
        wanted, profile = predicted(models["channel"], image, tmp_path)
        assert browser.label(image) == "done", (name, browser.status)
        labels, own = saved(browser, image)
        assert np.array_equal(labels, wanted), (name, (labels == wanted).mean())
        assert [own[key] for key in ("crs", "transform")] == [profile[key] for key in ("crs", "transform")], name
        if KEYS not in tags:
            continue
        areas = browser.run("current.areas")
        if name in ("feet", "no size of pixels"):  # told, and not guessed
            assert areas is None
            browser.click("save-geojson")
            assert browser.wait("refused") == "refused"
            continue
        with rasterio.open(tmp_path / f"predicted-{number}.tif") as file:
            bounds = warp.transform_bounds(file.crs, 4326, *file.bounds)
        polygons = json.loads(browser.save("save-geojson", f"{number}-classes.geojson").read_text())["features"]
        corners = np.array([xy for one in polygons for xy in one["geometry"]["coordinates"][0]])
        assert np.allclose([*corners.min(0), *corners.max(0)], bounds, atol=2e-8), name
        assert sum(areas) == pytest.approx(HEIGHT * WIDTH * abs(file.transform.determinant), rel=2e-3), name
    assert "EPSG:32640 in its own unit" in browser.run("document.getElementById('notes').textContent")


def test_tags_that_the_page_does_not_follow_are_refused(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    content, inks = pixels().tobytes(), ("Cyan", "Magenta", "Yellow", "Black")
    kinds = described(names=("Hue", "Saturation", "Lightness")).replace('"description"', '"colorinterp"')
    browser.open(pages["channel"])
    tables: list[tuple[str, dict[int, Any], bytes, str]] = [
        ("reverse", {266: (SHORT, [2])}, content, "bits in reverse order"),
        ("ninth", {317: (SHORT, [9]), 259: (SHORT, [8])}, zlib.compress(content), "predictor 9 of uint8"),
        ("third", {317: (SHORT, [3]), 259: (SHORT, [8])}, zlib.compress(content), "predictor 3 of uint8"),
        ("hue", {42112: kinds}, content, "a band of hue, not red, green and blue"),
        (
            "inks",
            {258: (SHORT, [8] * 4), 277: (SHORT, [4]), 262: (SHORT, [1]),
             42112: described(names=inks).replace('"description"', '"colorinterp"')},
            content + bytes(HEIGHT * WIDTH), "its colours are inks",
        ),
        ("kinds", {258: (SHORT, [8, 8, 16])}, content, "its values are of several kinds"),
    ]  # fmt: skip
    for name, tags, packed, said in tables:
        image = write_tags(tmp_path / f"{name}.tif", tags, packed)
        assert browser.label(image) == "refused", name
        assert said in browser.status, name


def test_the_tags_of_what_is_saved_are_in_order(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    coefficients = {50844: (DOUBLE, [float(number) for number in range(92)])}
    image = write_tags(tmp_path / "rational.tif", coefficients, pixels().tobytes())
    browser.open(pages["channel"])
    assert browser.label(image) == "done", browser.status
    path = browser.save("save-tif", "rational-classes.tif")
    content = path.read_bytes()
    tags = [struct.unpack_from("<H", content, 10 + 12 * i)[0] for i in range(struct.unpack_from("<H", content, 8)[0])]
    assert tags == sorted(tags)
    assert {42112, 42113, 50844} <= set(tags)
    with rasterio.open(path) as own, rasterio.open(image) as given:
        assert own.rpcs == given.rpcs
        assert own.rpcs is not None


def test_bands_that_are_called_otherwise_are_told_as_predict_tells_them(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.open(pages["channel"])
    for number, names in enumerate(CALLED):
        planes = scene(8, 9)[[0, 1, 2, 0][: len(names)]]
        image = write_tiff(tmp_path / f"{number}.tif", planes, photometric="minisblack", descriptions=names)
        with rasterio.open(image) as file:
            choice = choose_bands(file, "it", None)
            given = {
                "colors": [color.name for color in file.colorinterp], "descriptions": names, "count": file.count,
            }  # fmt: skip
        found = browser.run(f"chooseColors({json.dumps(given)})")
        assert found["numbers"] == list(choice.numbers)
        assert len(found["notes"]) == len(choice.notes), names
        called = [re.search(r"are called ([^.(]*\w)", note) for note in (*found["notes"], *choice.notes)]
        assert len({one and one[1] for one in called}) <= 1, called
