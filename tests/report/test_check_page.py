"""The page of `data check`: what it says and shows is what the data hold, and a name in it is never markup."""

import base64
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from skystill.api import check
from skystill.data.masks import pack_colors
from skystill.data.prepare import CheckedData
from skystill.errors import DiskFull, SettingsError
from skystill.report.check_page import PART_COLORS
from tests.maps import box, write_classes, write_layer, write_raster

ROOF, ROAD = (213, 94, 0), (240, 228, 66)  # the colours that classes without one get, in their order


class Page(HTMLParser):
    """The tags of a page by name, its text, and its pictures by the class of their tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: dict[str, list[dict[str, str | None]]] = {}
        self.cells: list[str] = []
        self._text: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join("".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def picture(self, kind: str) -> np.ndarray:
        return decoded(self.picture_url(kind))

    def picture_url(self, kind: str) -> str | None:
        return next(tag["href"] for tag in self.tags["image"] if tag.get("class", "") == kind)

    def outlines(self, part: str) -> list[shapely.Polygon]:
        found = [tag["d"] for tag in self.tags["path"] if tag["class"] == part]
        rings = [ring for path in found for ring in str(path).rstrip("Z").split("Z")]
        return [shapely.Polygon([tuple(map(float, p.split())) for p in ring[1:].split("L")]) for ring in rings]


def decoded(url: str | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(str(url).split(",")[1]))))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckedData, Page]:
    """A map of 1,100 x 1,300 pixels with roofs, a road, an area, and names that are markup; and its page."""
    root = tmp_path_factory.mktemp("a & <b>")
    to = write_raster(root / "ortho.tif", 1100, 1300, tiled=True, compress="deflate",
                      values=np.full((3, 1100, 1300), 90, np.uint8))  # fmt: skip
    roofs = [box(to, y, y + 40, x, x + 40) for y in range(20, 1100, 100) for x in range(20, 1300, 100)]
    write_layer(root / "labels.gpkg", [*roofs, shapely.Polygon([(0, 0), (1, 1), (1, 0)])], "roofs")
    write_layer(root / "labels.gpkg", [box(to, 530, 550, 0, 1300)], "roads")
    write_layer(root / "area.gpkg", [box(to, 0, 1100, 0, 900)])
    write_classes(root, {"'<i>Roof'": "{layer: roofs}", "Road": "{layer: roads}", "Land": "rest"})
    found = check(data=root, html=root / "check.html")
    assert list(root.glob(".part-*")) == []
    return found, Page(root / "check.html")


def test_the_page_needs_no_other_file_and_runs_no_code(made: tuple[CheckedData, Page]) -> None:
    page = made[1]
    assert not {"script", "link", "iframe", "i><b"} & page.tags.keys()
    urls = [tag.get(name) for tags in page.tags.values() for tag in tags for name in ("href", "src") if tag.get(name)]
    assert len(urls) > 10
    assert [url for url in urls if not str(url).startswith(("data:image/", "#"))] == []
    assert "<i>Roof" in page.text and "<i>Roof" not in page.source
    assert "a & <b>" in page.text and "<b>" not in page.source


def test_features_area_and_split_are_drawn_where_they_are(made: tuple[CheckedData, Page]) -> None:
    page = made[1]
    assert page.tags["svg"][0]["viewbox"] == "0 0 1300 1100"
    drawn = page.picture("layer-labels")  # two pixels of the raster become one
    assert drawn.shape == (550, 650, 4)
    expected = np.zeros((550, 650), int)
    for y in range(10, 550, 50):
        for x in range(10, 450, 50):
            expected[y : y + 20, x : x + 20] = 1
    expected[265:275, :450] = 2
    colors = np.array([(0, 0, 0), ROOF, ROAD], np.uint8)
    assert np.array_equal(drawn[..., :3], colors[expected])
    assert np.array_equal(drawn[..., 3] > 0, expected > 0)
    outside = page.picture("layer-area")[..., 3] > 0
    assert outside[:, 450:].all() and not outside[:, :450].any()


def test_blocks_of_the_split_are_those_that_are_trained_on(made: tuple[CheckedData, Page]) -> None:
    page, split = made[1], made[0].split
    assert split is not None
    for part in ("train", "validation", "test"):
        windows = [pair.bounds for pair in getattr(split, part)]
        boxes = shapely.union_all([shapely.box(left, top, right, bottom) for top, bottom, left, right in windows])
        drawn = shapely.union_all(page.outlines(part))
        assert drawn.area > 0 and shapely.symmetric_difference(boxes, drawn).area == 0, part
        blocks = len({pair.key.split("[")[0] for pair in getattr(split, part)})
        assert f"{part}, {blocks} block" in page.text
        assert f'fill="{PART_COLORS[part]}"' in page.source


def test_shares_are_those_of_the_check(made: tuple[CheckedData, Page]) -> None:
    found, page = made
    roofs, roads = 11 * 9 * 1600 - 9 * 40 * 20, 20 * 900
    land = 1100 * 900 - roofs - roads
    counts = {"<i>Roof": roofs, "Road": roads, "Land": land, "void": 1100 * 400}
    rows = re.findall(r"<tr><td>(.*?)</td><td>([\d,]+)</td><td>([\d.]+) %</td>", page.source)
    assert {html.unescape(name): int(count.replace(",", "")) for name, count, _ in rows} == counts
    assert [share for *_, share in rows] == [f"{100 * count / 1430000:.2f}" for count in counts.values()]
    assert found.parts is not None
    for part, pixels in found.parts.pixels.items():
        assert f"<td>{pixels[0]:,}</td>" in page.source, part
    widths = re.findall(r'width: ([\d.]+)%(?:; background: #\w+)?" title', page.source)
    assert sum(map(float, widths)) == pytest.approx(400)  # four bars of 100 %


def test_notes_are_those_of_the_check(made: tuple[CheckedData, Page]) -> None:
    found, page = made
    assert len(found.notes) >= 4
    assert [note for note in found.notes if " ".join(note.split()) not in page.text] == []
    assert "Road covers <i>Roof on 7,200 pixels (7,200 m2)" in page.text
    assert "1 of 144 features lie outside of the raster" in page.text


def test_samples_hold_every_class_and_their_own_labels(made: tuple[CheckedData, Page]) -> None:
    pictures = made[1].tags["img"]
    shown: set[int] = set()
    assert 4 <= len(pictures) <= 24
    for image, labels in zip(pictures[::2], pictures[1::2], strict=True):
        assert decoded(image["src"]).shape[:2] == decoded(labels["src"]).shape[:2]
        assert labels["alt"] == f"labels of {image['alt']}"
        shown |= set(np.unique(pack_colors(decoded(labels["src"]))).tolist())
    colors = np.array([[ROOF, ROAD, (0, 114, 178)]], np.uint8)
    assert set(pack_colors(colors).ravel().tolist()) <= shown


def test_a_raster_in_strips_is_drawn_row_by_row(tmp_path: Path) -> None:
    values = np.full((3, 400, 4400), 90, np.uint8)
    values[:, :200, 2200:] = 0
    to = write_raster(tmp_path / "ortho.tif", 400, 4400, values=values, compress="deflate", nodata=0)
    write_layer(tmp_path / "labels.gpkg", [box(to, 100, 300, x, x + 90) for x in range(10, 4300, 256)], "roofs")
    write_classes(tmp_path, {"Roof": "{layer: roofs}", "Land": "rest"})
    check(data=tmp_path, html=tmp_path / "check.html")
    drawn = decoded(Page(tmp_path / "check.html").picture_url("")).astype(int)
    assert drawn.shape == (50, 550, 3)
    grey = np.full((50, 550), 90)
    grey[:25, 275:] = 225
    assert (np.abs(drawn.mean(axis=2) - grey) < 12).mean() > 0.98  # JPEG blurs the edge


def write_pairs(root: Path) -> None:
    rng = np.random.default_rng(0)
    for place in range(5):
        Image.fromarray(rng.integers(0, 255, (60, 500, 3)).astype(np.uint8)).save(root / f"{place}<i>.png")
        mask = np.zeros((60, 500), np.uint8)
        mask[10:30, 420:440] = 1
        mask[:2, :10] = 9 if place == 3 else 0
        Image.fromarray(mask).save(root / f"{place}<i>_mask.png")
    (root / "classes.yaml").write_text("classes: [{name: Land}, {name: Roof}, {name: Pool}]")


def test_pairs_with_problems_get_a_page_too(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "4<i>_mask.png").unlink()
    found = check(data=tmp_path, html=tmp_path / "out/check.html")
    page = Page(tmp_path / "out/check.html")
    assert len(found.check.problems) == 3
    assert "3 problems to mend before training" in page.text
    assert [problem for problem in found.check.problems if problem not in page.text] == []
    assert "svg" not in page.tags
    assert "i" in page.tags and all("style" in tag or "class" in tag for tag in page.tags["i"])  # swatches, not names
    assert "all: 120,000 pixels" in page.text
    labels = decoded(page.tags["img"][1]["src"])
    assert labels.shape == (60, 384, 3)  # around a pixel of Roof, which lies at the right
    assert (labels == (240, 228, 66)).all(axis=2).sum() == 400


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    page = tmp_path / "check.html"
    page.mkdir()
    with pytest.raises(DiskFull, match=r"check\.html"):
        check(data=tmp_path, html=page)
    assert list(tmp_path.glob(".part-*")) == []
    with pytest.raises(SettingsError, match=r"does not end in \.html"):
        check(data=tmp_path, html=tmp_path / "0<i>.png")
