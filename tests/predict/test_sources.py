"""Inputs of `skystill predict` besides files and folders: buckets, and lists on this computer and in a bucket."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin

from skystill import api
from skystill.data.image_lists import read_image_list
from skystill.errors import DataError, SettingsError
from skystill.predict.inputs import find_inputs, name_targets
from skystill.settings import PredictSettings
from tests.channel_model import INFO, write_model
from tests.s3 import Bucket


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a model file: the class of a pixel is its brightest band."""
    write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scene(path: Path, seed: int = 0, **options: Any) -> Path:
    """A GeoTIFF of squares of random colours, 300 x 200 pixels in blocks, as archives are stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = np.random.default_rng(seed).integers(0, 256, (3, 20, 30), np.uint8)
    place = {"crs": "EPSG:32640", "transform": from_origin(300_000, 2_800_000, 0.5, 0.5)}
    form = {"driver": "GTiff", "height": 200, "width": 300, "count": 3, "dtype": "uint8", "compress": "deflate"}
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", **form, **blocks, **place, **options) as file:
        file.write(colors.repeat(10, axis=1).repeat(10, axis=2))
    return path


def predict(*inputs: object, **settings: object) -> list[str]:
    settings = {"model": Path("m.onnx"), "threads": 1, **settings}
    done = api.predict(inputs=[str(name) for name in inputs], **settings)
    return [str(one.prediction.path) for one in done]


def labels(path: str | Path) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as file:
        content: np.ndarray[Any, Any] = file.read(1)
        return content


# ---- buckets


def test_a_bucket_gives_the_labels_of_the_local_files(here: Path, bucket: Bucket) -> None:
    for name in ("a", "north/b"):
        bucket.put(f"in/{name}.tif", scene(here / f"in/{name}.tif", seed=len(name)))
    bucket.put("in/a_mask.tif", b"no raster")
    assert predict("in", out=Path("local"), recursive=True) == ["local/a.tif", "local/north/b.tif"]
    for number, name in enumerate(("in", "in/**/*.tif")):
        out = Path(f"out{number}")
        assert predict(bucket / name, out=out, recursive=True) == [f"{out}/a.tif", f"{out}/north/b.tif"]
        for result in ("a.tif", "north/b.tif"):
            np.testing.assert_array_equal(labels(out / result), labels(Path("local") / result))
            assert (out / result).read_bytes() == (Path("local") / result).read_bytes()
    assert predict(bucket / "in/north/b.tif", out=Path("b.tif")) == ["b.tif"]
    assert Path("b.tif").read_bytes() == Path("local/north/b.tif").read_bytes()


def test_results_of_a_bucket_do_not_collide(here: Path, bucket: Bucket) -> None:
    for folder in ("north", "south"):
        bucket.put(f"{folder}/a.tif", scene(here / "a.tif"))
    with pytest.raises(SettingsError, match=r"several inputs would be written to a\.tif"):
        predict(bucket / "*/a.tif", out=Path("out"))
    assert not Path("out").exists()
    assert predict(bucket / "*/a.tif", out=Path("out"), recursive=True) == ["out/north/a.tif", "out/south/a.tif"]
    assert predict(bucket / "north/", bucket / "north/a.tif", bucket / "n*/*.tif", out=Path("p")) == ["p/a.tif"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("in/", "no images there"),
        ("in/*.png", "no images there"),
        ("none/", "there is no such folder"),
        ("in/none.tif", "cannot be opened as a raster"),
        ("in/broken.tif", "cannot be opened as a raster"),
    ],
)
def test_what_a_bucket_lacks_is_named(here: Path, bucket: Bucket, key: str, said: str) -> None:
    bucket.put("in/notes.txt", b"text")
    if "broken" in key:
        bucket.put(key, b"II*\0 no raster")
    with pytest.raises(DataError, match=said) as raised:
        predict(bucket / key, out=Path("out"))
    assert key in str(raised.value) and raised.value.exit_code == 2


# ---- lists


def stac_item(name: str, assets: dict[str, tuple[str, list[str]]], date: datetime | None = None) -> pystac.Item:
    when = date or datetime(2026, 3, 1, tzinfo=UTC)
    item = pystac.Item(name, None, None, when, {})
    for key, (href, roles) in assets.items():
        item.add_asset(key, pystac.Asset(href, roles=roles or None))
    return item


def collected(path: Path, items: list[pystac.Item]) -> Path:
    path.write_text(json.dumps(pystac.ItemCollection(items).to_dict(), default=str))
    return path


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def parquet(path: Path, **columns: list[object]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


LISTS: dict[str, Callable[[Path], Path]] = {
    "table": lambda here: table(here / "list.csv", "id,image", "1,in/a.tif", "2,in/north/b.tif"),
    "dates": lambda here: table(
        here / "LIST.CSV", "image,datetime", "in/a.tif,2026-03-01", "in/north/b.tif,2026-03-01T00:00:00Z"
    ),
    "parquet": lambda here: parquet(here / "list.geoparquet", image=["in/a.tif", "in/north/b.tif"], other=["", ""]),
    "STAC by role": lambda here: collected(here / "items.json", [
        stac_item("a", {"x": ("./in/a.tif", ["data"]), "small": ("no.png", ["thumbnail"])}),
        stac_item("b", {"x": ("in/north/b.tif", ["Data"]), "labels": ("no.tif", ["labels"])}),
    ]),
    "STAC by key": lambda here: collected(here / "items.json", [
        stac_item("a", {"image": ("in/a.tif", []), "other": ("no.tif", [])}),
        stac_item("b", {"visual": ((here / "in/north/b.tif").as_uri(), [])}),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("write", LISTS.values(), ids=LISTS)
def test_a_list_gives_its_images(here: Path, write: Callable[[Path], Path]) -> None:
    scene(here / "in/a.tif", 1)
    scene(here / "in/north/b.tif", 2)
    assert predict(write(here).name, out=Path("out")) == ["out/a.tif", "out/b.tif"]
    expected = predict("in/a.tif", "in/north/b.tif", out=Path("local"))
    assert [Path(path).read_bytes() for path in expected] == [Path(f"out/{n}.tif").read_bytes() for n in "ab"]
    done = predict(write(here).name, out=Path("deep"), recursive=True)
    assert done == ["deep/in/a.tif", "deep/in/north/b.tif"]


def test_the_dates_of_a_list(here: Path) -> None:
    scene(here / "in/a.tif")
    scene(here / "in/north/b.tif")
    day = datetime(2026, 3, 1, tzinfo=UTC)
    stamps = {"image": ["in/a.tif", "in/north/b.tif"], "datetime": [day, day + timedelta(microseconds=1)]}
    parquet(here / "stamps.parquet", **stamps)
    parquet(here / "days.parquet", **stamps | {"datetime": [None, day.date()]})
    for name, dates in (
        ("dates", [day, day]),
        ("STAC by role", [day, day]),
        ("table", []),
        ("stamps.parquet", stamps["datetime"]),
        ("days.parquet", [day]),
    ):
        path = LISTS[name](here).name if name in LISTS else name
        assert list(find_inputs(PredictSettings(inputs=[path])).dates.values()) == dates, name
    table(here / "odd.csv", "image,datetime", "in/a.tif,", "in/north/b.tif,2026-03-01T02:00:00+02:00")
    assert [image.date for image in read_image_list("odd.csv")] == [None, day]
    found = find_inputs(PredictSettings(inputs=[str(here / "in"), "odd.csv", LISTS["dates"](here).name]))
    assert found.dates == {str(here / "in/a.tif"): day, "in/north/b.tif": day}  # as the input is called, named twice
    with pytest.raises(DataError, match=r"stamps.parquet: the image in/north/b.tif has two dates, 2026-03-01T02:00:00"):
        find_inputs(PredictSettings(inputs=["odd.csv", "stamps.parquet"]))


def test_the_extension_of_what_cannot_be_opened(here: Path) -> None:
    (here / "bad.tif").write_bytes(b"II*\0")
    sources = {name: Path() for name in ("bad.tif", "none.TIFF", "none.jpg")}
    found = name_targets(sources, PredictSettings(inputs=["-"], out=Path("out")))
    assert [target.name for _, target in found] == ["bad.tif", "none.tif", "none.png"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["file", "a.tif"], "it needs image"),
        (["image"], "lists no images"),
        (["image", "https://a.org/a.tif"], "row 2: its image https://a.org/a.tif is on a server"),
        (["image", "s3://b/a.tif"], "on a server or in an archive; a catalogue can name files of this computer only"),
        (["image", "/vsicurl/https://a.org/a.tif"], "on a server or in an archive"),
        (["image,image", "a.tif,a.tif"], "columns image twice over"),
        (["image,date", "a.tif"], "row 2 has 1 cells"),
        (["image,x", ",1"], "row 2: it names no image"),
        (["image,datetime", "a.tif,yesterday"], "row 2: its datetime yesterday is no date such as 2026-03-01"),
        (["image,datetime", "a.tif,01.03.2026"], "leave it empty if it is not known"),
    ],
)
def test_lists_that_are_refused(here: Path, rows: list[str], said: str) -> None:
    table(here / "list.csv", *rows)
    with pytest.raises(DataError, match=said) as raised:
        predict("list.csv", out=Path("out"))
    assert raised.value.exit_code == 2 and not Path("out").exists()


def test_items_that_are_refused(here: Path) -> None:
    bands = {name: (f"{name}.tif", ["data"]) for name in ("red", "nir")}
    collected(here / "items.json", [stac_item("two", bands), stac_item("none", {}), stac_item("b", {"x": ("b", [])})])
    with pytest.raises(DataError, match=r"items\.json: 3 of its images") as raised:
        predict("items.json", out=Path("out"))
    assert "item two: it has 2 assets that may be its image (red, nir)" in str(raised.value)
    for text in ('{"type": "FeatureCollection", "features": [{"type": "Feature"}]}', '{"a": 1}', "not json"):
        Path("items.geojson").write_text(text)
        with pytest.raises(DataError, match=r"no STAC|cannot be read|JSON"):
            predict("items.geojson", out=Path("out"))
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        predict("none.csv", out=Path("out"))


@pytest.mark.parametrize(
    ("found", "whole"),
    [
        ({"links": [{"rel": "next", "href": "https://stac/search?page=2"}]}, False),
        ({"links": [{"rel": "next", "href": "https://stac/search"}], "numberMatched": 7, "numberReturned": 1}, False),
        ({"links": [{"rel": "next", "href": "https://stac/search"}], "context": {"matched": 2}}, False),
        ({"links": [{"rel": "next", "href": "https://stac/search"}], "numberMatched": 1}, True),  # the next is empty
        ({"links": [{"rel": "self", "href": "https://stac/search"}]}, True),
        ({"links": None, "context": None}, True),
        ({"links": 3}, False),
        ({"links": [{"rel": "next", "href": "https://stac/search"}], "context": 3}, False),
    ],
)
def test_one_page_of_a_search_is_not_taken_for_all_of_it(here: Path, found: dict[str, object], whole: bool) -> None:
    scene(here / "in/a.tif")
    item = stac_item("a", {"image": ("in/a.tif", ["data"])}).to_dict()
    Path("found.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item], **found}, default=str))
    if whole:
        assert [image.source for image in read_image_list("found.json")] == ["in/a.tif"]
    else:
        with pytest.raises(DataError, match=r"found\.json: .*(one page of a search|no list of links|not|object)"):
            read_image_list("found.json")


def test_the_asset_of_items_is_chosen_by_its_key(here: Path) -> None:
    """Both items have a red and a near infrared raster of the role data."""
    for name in ("a-red", "a-nir", "b-red", "b-nir"):
        scene(here / f"in/{name}.tif", len(name) + ord(name[0]))
    items = [
        stac_item(name, {key: (f"in/{name}-{key}.tif", ["data"]) for key in ("red", "nir")}) for name in ("a", "b")
    ]
    path = collected(here / "items.json", [*items, stac_item("labels of a", {"labels": ("no.tif", ["labels"])})])
    with pytest.raises(DataError, match=r"(?s)2 of its images .*\(red, nir\); choose one .* --asset red") as raised:
        predict(path.name, out=Path("out"))
    assert raised.value.exit_code == 2
    assert predict(path.name, asset="nir", out=Path("out")) == ["out/a-nir.tif", "out/b-nir.tif"]
    assert Path("out/a-nir.tif").read_bytes() == Path(predict("in/a-nir.tif", out=Path("one"))[0]).read_bytes()
    with pytest.raises(DataError, match=r"item a: it has no asset NIR \(--asset\); its assets are red, nir"):
        predict(path.name, asset="NIR", out=Path("none"))
    table(here / "list.csv", "image", "in/a-red.tif")
    for other in ("list.csv", "in"):
        with pytest.raises(SettingsError, match="--asset is for lists in STAC"):
            predict(other, asset="red", out=Path("none"))
    assert not Path("none").exists()


def test_a_missing_image_of_a_list_fails_by_itself(here: Path) -> None:
    scene(here / "a.tif")
    table(here / "list.csv", "image", "none.tif", "a.tif")
    with pytest.raises(DataError, match=r"none\.tif: no such file"):
        predict("list.csv", out=Path("out"))
    assert Path("out/a.tif").exists()


def test_a_list_in_a_bucket_names_images_there(here: Path, bucket: Bucket) -> None:
    bucket.put("in/a.tif", scene(here / "a.tif", 1))
    bucket.put("other/b.tif", scene(here / "b.tif", 2))
    expected = [Path(path).read_bytes() for path in predict("a.tif", "b.tif", out=Path("local"))]
    rows = ["image", "a.tif", f"{bucket / 'other/b.tif'}"]
    bucket.put("in/list.csv", table(here / "list.csv", *rows))
    items = [stac_item("a", {"x": ("./a.tif", ["data"])}), stac_item("b", {"x": ("../other/b.tif", ["data"])})]
    bucket.put("in/items.json", collected(here / "items.json", items))
    shutil.rmtree(here / "local")
    for name in ("in/list.csv", "in/items.json"):
        done = predict(bucket / name, out=Path("out"))
        assert [Path(path).read_bytes() for path in done] == expected
    assert [image.source for image in read_image_list(bucket / "in/list.csv")] == [
        bucket / "in/a.tif", bucket / "other/b.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(("href", "said"), [("/etc/a.tif", "a file of this computer"), ("/vsizip/a.tif", "not on a")])
def test_a_list_in_a_bucket_names_no_file_of_this_computer(here: Path, bucket: Bucket, href: str, said: str) -> None:
    bucket.put("list.csv", table(here / "list.csv", "image", href))
    with pytest.raises(DataError, match=said):
        predict(bucket / "list.csv", out=Path("out"))
    with pytest.raises(DataError, match="cannot be copied"):
        predict(bucket / "none.csv", out=Path("out"))
