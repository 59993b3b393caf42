"""Catalogues in place of a folder: the same pairs, and every way in which a table or STAC can be wrong."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely

from skystill.data import files_of_data, find_pairs, split_pairs
from skystill.data.prepare import check_folder
from skystill.errors import DataError, SettingsError
from skystill.settings import CheckSettings
from tests.maps import LEFT, TOP, write_classes, write_layer, write_raster

NAMES = [f"{index}.png" for index in range(6)]
SPLIT = ["train", "train", "train", "validation", "test", "test"]


def table(folder: Path, *rows: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(rows) + "\n")
    return path


def listed(**columns: list[str]) -> list[str]:
    return [",".join(columns), *(",".join(cells) for cells in zip(*columns.values(), strict=True))]


def images() -> list[str]:
    return [f"images/{name}" for name in NAMES]


def masks() -> list[str]:
    return [f"masks/{name}" for name in NAMES]


# ---- tables

WRITTEN: dict[str, Callable[[Path], Path]] = {
    "labels": lambda folder: table(folder, *listed(image=images(), labels=masks())),
    "label": lambda folder: table(folder, *listed(label=masks(), image=images())),
    "other columns": lambda folder: table(folder, *listed(id=NAMES, image=images(), label=masks())),
    "upper case and blanks": lambda folder: table(
        folder, *(row.replace(",", " , ") for row in listed(Image=images(), LABELS=masks())), name="LIST.CSV"
    ),
    "quotes": lambda folder: table(
        folder, *(",".join(f'"{cell}"' for cell in row.split(",")) for row in listed(image=images(), label=masks()))
    ),
    "absolute": lambda folder: table(folder, *listed(image=[str(folder / i) for i in images()], label=masks())),
    "file://": lambda folder: table(folder, *listed(image=[(folder / i).as_uri() for i in images()], label=masks())),
    "dots": lambda folder: table(
        folder, *listed(image=[f"masks/../{i}" for i in images()], label=[f"./{m}" for m in masks()])
    ),
    "empty lines": lambda folder: table(folder, *listed(image=images(), label=masks()), "", ",", ""),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_table_gives_the_pairs_of_the_folder(write: Callable[[Path], Path], pairs_folder: Path) -> None:
    expected = find_pairs(pairs_folder)
    found = find_pairs(write(pairs_folder))
    assert (found.problems, found.notes) == ((), ())
    assert [pair.key for pair in found.pairs] == [pair.key for pair in expected.pairs]
    assert [pair.image.resolve() for pair in found.pairs] == [pair.image for pair in expected.pairs]
    assert [pair.mask.resolve() for pair in found.pairs] == [pair.mask for pair in expected.pairs]


def test_a_table_of_a_spreadsheet(pairs_folder: Path) -> None:
    path = pairs_folder / "list.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(listed(image=images(), labels=masks())).encode())
    assert find_pairs(path).pairs == find_pairs(pairs_folder).pairs


def parquet(folder: Path, name: str = "list.parquet", **columns: list[Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["list.parquet", "list.geoparquet"])
def test_geoparquet(name: str, pairs_folder: Path) -> None:
    shapes = [shapely.to_wkb(shapely.box(0, 0, index + 1, 1)) for index in range(6)]
    path = parquet(pairs_folder, name, geometry=shapes, image=images(), id=list(range(6)), labels=masks(), split=SPLIT)
    found = find_pairs(path)
    assert found.problems == () and [pair.subset for pair in found.pairs] == SPLIT
    assert [replace(pair, subset="") for pair in found.pairs] == list(find_pairs(pairs_folder).pairs)


def test_parquet_with_categories(pairs_folder: Path) -> None:
    """Pandas writes a column of categories as a dictionary, where a value may be missing."""
    pyarrow = pytest.importorskip("pyarrow")
    split = pyarrow.array([None, *SPLIT[1:]]).dictionary_encode()
    path = parquet(pairs_folder, image=pyarrow.array(images()).dictionary_encode(), labels=masks(), split=split)
    found = find_pairs(path)
    assert [pair.subset for pair in found.pairs] == ["", *SPLIT[1:]]
    assert "1 image(s) have no split (row 2)" in "".join(found.problems)


def test_bad_parquet(pairs_folder: Path) -> None:
    columns = {"image": images(), "label": masks()}
    for wrong, said in (
        (parquet(pairs_folder, "a.parquet", picture=images(), mask=masks()), "has the columns picture, mask; it needs"),
        (
            parquet(pairs_folder, "b.parquet", image=images(), label=list(range(6))),
            r"columns of text are wanted \(label int64",
        ),
        (parquet(pairs_folder, "c.parquet", **columns, labels=masks()), "columns labels and label twice over"),
        (parquet(pairs_folder, "d.parquet", image=images(), label=[None] * 6), "row 2: it names no labels"),
        (parquet(pairs_folder, "e.parquet", image=["a\0b"] * 6, label=masks()), "is no text"),
        (
            parquet(pairs_folder, "f.parquet", image=[], label=[]),
            "columns of text are wanted|lists no image with labels",
        ),
        (
            parquet(pairs_folder, "g.parquet", image=["a" * 1_000] * 40_000, label=["b"] * 40_000),
            "texts have 40,040,000 ",
        ),
        (
            parquet(pairs_folder, "h.parquet", image=[{"a": "b"}] * 6, label=masks()),
            r"columns of text are wanted \(image",
        ),
    ):
        with pytest.raises(DataError, match=said):
            find_pairs(wrong)
    whole = parquet(pairs_folder, **columns).read_bytes()
    for damaged in (b"", b"PAR1", whole[:-9], whole[:200] + whole[300:], b"image,label\n"):
        (pairs_folder / "list.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            find_pairs(pairs_folder / "list.parquet")


def test_parquet_says_which_package_it_needs(pairs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (pairs_folder / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(SettingsError, match=r"pip install \"skystill\[parquet\]\""):
        find_pairs(pairs_folder / "list.parquet")


def test_paths_are_relative_to_the_table_and_classes_lie_beside_it(pairs_folder: Path, tmp_path: Path) -> None:
    inner = pairs_folder / "lists"
    inner.mkdir()
    path = table(inner, *listed(image=[f"../{i}" for i in images()], label=[f"../{m}" for m in masks()]))
    shutil.copy(pairs_folder / "classes.yaml", inner)
    found = check_folder(CheckSettings(data=path))
    assert found.check.problems == () and len(found.check.records) == 6
    assert found.check.counts[:2].tolist() == check_folder(CheckSettings(data=pairs_folder)).check.counts[:2].tolist()
    outside = find_pairs(path).pairs[0]
    assert outside.key == "/".join([*pairs_folder.parts[1:], "0"])  # not below the folder of the table: its whole path


@pytest.mark.parametrize("words", [SPLIT, ["Training", "TRAIN", "train", "val", "test", "test"]])
def test_the_column_split_is_kept_to(words: list[str], pairs_folder: Path) -> None:
    path = table(pairs_folder, *listed(image=images(), label=masks(), split=words))
    found = check_folder(CheckSettings(data=path))
    assert found.split is not None
    parts = {part: [pair.key for pair in getattr(found.split, part)] for part in ("train", "validation", "test")}
    assert parts == {"train": ["0", "1", "2"], "validation": ["3"], "test": ["4", "5"]}
    assert len(split_pairs(find_pairs(path).pairs, "0.5/0/0.5").train) == 3  # another --split overrules it


def test_masks_are_fitted_as_in_a_folder(pairs_folder: Path) -> None:
    path = table(pairs_folder, *listed(image=images(), label=masks()))
    assert find_pairs(path, fit_masks=True).pairs == tuple(replace(p, fit_mask=True) for p in find_pairs(path).pairs)


@pytest.fixture
def map_folder(tmp_path: Path) -> Path:
    write_raster(tmp_path / "ortho.tif", 700, 900)
    box = shapely.box(LEFT + 50, TOP - 300, LEFT + 400, TOP - 60)
    write_layer(tmp_path / "labels.geojson", [box, shapely.box(LEFT, TOP - 690, LEFT + 90, TOP - 500)])
    write_classes(tmp_path, {"Land": "rest", "House": "{layer: labels}"})
    return tmp_path


def test_one_row_with_features_is_a_map(map_folder: Path) -> None:
    path = table(map_folder, "image,labels", "ortho.tif,labels.geojson")
    assert find_pairs(path) == find_pairs(map_folder)
    found, expected = (check_folder(CheckSettings(data=data, split="blocks:200/20")) for data in (path, map_folder))
    assert found.check.counts.tolist() == expected.check.counts.tolist() and found.split == expected.split


BAD: dict[str, tuple[list[str], str]] = {
    "empty": ([""], r"list.csv is empty|needs image and labels"),
    "no image": (listed(picture=images(), labels=masks()), "has the columns picture, labels; it needs image"),
    "no labels": (listed(image=images(), mask=masks()), "has the columns image, mask; it needs image"),
    "semicolons": ([row.replace(",", ";") for row in listed(image=images(), label=masks())], "separated by commas"),
    "both spellings": (listed(image=images(), label=masks(), labels=masks()), "columns labels and label twice over"),
    "a column twice": (["image,image,label", "a,b,c"], "the columns image twice over"),
    "a short row": (["image,label", "images/0.png"], "row 2 has 1 cells; its first row names 2 columns"),
    "an open quote": (["image,label", '"images/0.png,masks/0.png'], "cannot be read as CSV"),
    "no rows": (["image,label"], "lists no image with labels"),
    "a missing image": (["image,label", "images/9.png,masks/0.png"], r"row 2: its image .*9.png does not exist"),
    "a missing mask": (["image,label", "images/0.png,masks/9.png"], r"row 2: its labels .*9.png does not exist"),
    "no label": (["image,label", "images/0.png,"], "row 2: it names no labels"),
    "too long a name": (["image,label", f"{'a' * 300}.png,masks/0.png"], "cannot be the name of a file"),
    "a folder": (["image,label", "images,masks"], "row 2: its image .*images is a folder, not a file"),
    "an address": (["image,label", "https://a.org/0.tif,masks/0.png"], "0.tif is on a server or in an archive"),
    "an archive": (["image,label", "/vsizip/a.zip/0.tif,masks/0.png"], "is on a server or in an archive"),
    "no image file": (["image,label", "classes.yaml,masks/0.png"], r"row 2: .*classes.yaml is no image"),
    "no mask file": (["image,label", "images/0.png,classes.yaml"], r"row 2: .*classes.yaml are no labels: a mask"),
    "the same file": (["image,label", "images/0.png,images/0.png"], "is both the image and its labels"),
    "a split that is none": (["image,label,split", "images/0.png,masks/0.png,fold1"], "its split is fold1; write"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), BAD.values(), ids=BAD)
def test_a_bad_table_is_refused_in_words(rows: list[str], said: str, pairs_folder: Path) -> None:
    with pytest.raises(DataError, match=said):
        find_pairs(table(pairs_folder, *rows))


PROBLEMS: dict[str, tuple[list[str], str]] = {
    "a row without its file": (["images/0.png,masks/0.png", "images/9.png,masks/1.png"], "row 3: its image"),
    "an image twice": (["images/0.png,masks/0.png", "images/../images/0.png,masks/1.png"], "0.png is listed 2 times"),
    "a name twice": (["images/0.png,masks/0.png", "copy/0.png,masks/1.png", "images/0.tif,masks/2.png"], "same name"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), PROBLEMS.values(), ids=PROBLEMS)
def test_problems_of_rows_are_listed(rows: list[str], said: str, pairs_folder: Path) -> None:
    shutil.copytree(pairs_folder / "images", pairs_folder / "copy")
    shutil.copy(pairs_folder / "images/2.png", pairs_folder / "images/0.tif")
    (problem,) = find_pairs(table(pairs_folder, "image,label", *rows)).problems
    assert said in problem


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "", "train", "", "test", "test"], r"2 image\(s\) have no split \(row 3, row 5\)"),
        (["train"] * 6, "no image has the split test"),
        (["val"] * 6, "no image has the split train or test"),
        ([""] * 6, r"6 image\(s\) have no split"),
    ],
)
def test_a_split_of_some_images_is_a_problem(words: list[str], said: str, pairs_folder: Path) -> None:
    path = table(pairs_folder, *listed(image=images(), label=masks(), split=words))
    with pytest.raises(DataError, match=said):
        check_folder(CheckSettings(data=path)).check.raise_problems(path)


def test_rows_with_the_same_features_are_a_map_of_several_rasters(map_folder: Path) -> None:
    shutil.copy(map_folder / "ortho.tif", map_folder / "a.tif")
    path = table(map_folder, "image,labels", "ortho.tif,labels.geojson", "a.tif,labels.geojson")
    assert find_pairs(path) == find_pairs(map_folder)
    assert {pair.image.name for pair in find_pairs(path).pairs} == {"a.tif", "ortho.tif"}


@pytest.mark.parametrize(
    "rows", [["a.tif,labels.geojson", "ortho.tif,area.geojson"], ["ortho.tif,labels.geojson", "a.tif,m.png"]]
)
def test_a_map_stands_alone(rows: list[str], map_folder: Path, write_picture: Callable[..., Path]) -> None:
    shutil.copy(map_folder / "ortho.tif", map_folder / "a.tif")
    shutil.copy(map_folder / "labels.geojson", map_folder / "area.geojson")
    write_picture(map_folder / "m.png")
    with pytest.raises(DataError, match=r"lists 2 image\(s\), . of them with features"):
        find_pairs(table(map_folder, "image,labels", *rows))


def test_no_result_replaces_what_a_catalogue_lists(pairs_folder: Path) -> None:
    path = table(pairs_folder, *listed(image=images(), label=masks()))
    assert set(files_of_data(path)) == {path, *files_of_data(pairs_folder)} and len(files_of_data(path)) == 13
    assert files_of_data(table(pairs_folder, "x", name="bad.csv")) == [pairs_folder / "bad.csv"]


@pytest.mark.parametrize("name", ["none.csv", "none.json"])
def test_a_catalogue_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        find_pairs(tmp_path / name)


# ---- STAC, written by pystac

LABEL = "https://stac-extensions.github.io/label/v1.0.1/schema.json"


def item(name: str, assets: dict[str, tuple[str, list[str]]], **properties: Any) -> pystac.Item:
    made = pystac.Item(name, None, None, datetime(2026, 1, 1, tzinfo=UTC), properties)
    for key, (href, roles) in assets.items():
        made.add_asset(key, pystac.Asset(href, roles=roles or None))
    return made


def label_item(name: str, source: str | None, href: str, key: str = "labels", **more: Any) -> pystac.Item:
    made = item(name, {key: (href, [])}, **{"label:type": "raster", "label:description": "", "label:properties": None})
    made.stac_extensions.append(LABEL)
    if source is not None:
        made.add_link(pystac.Link("source", source, extra_fields=more))
    return made


def both(index: int, **properties: Any) -> pystac.Item:
    """An item with image and mask, and what does not matter."""
    assets = {
        "anything": (f"./images/{index}.png", ["data"]), "truth": (f"./masks/{index}.png", ["labels"]),
        "small": ("images/0.png", ["thumbnail"]), "about": ("classes.yaml", ["metadata"]),
    }  # fmt: skip
    return item(f"scene {index}", assets, **properties)


def collected(folder: Path, items: list[pystac.Item], name: str = "items.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(pystac.ItemCollection(items).to_dict(), default=str))
    return path


def written(folder: Path, made: pystac.Item, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(made.to_dict(include_self_link=False, transform_hrefs=False), default=str))
    return path


def catalog(folder: Path, name: str, *links: tuple[str, str], kind: str = "Catalog") -> Path:
    content = {"type": kind, "id": name, "stac_version": "1.0.0", "description": "",
               "links": [{"rel": rel, "href": href} for rel, href in links]}  # fmt: skip
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def separate(folder: Path, keys: bool = False) -> list[pystac.Item]:
    """An item for each image, and a label item for each mask."""
    found = []
    for index in range(6):
        assets = {"image": (f"images/{index}.png", []), "dem": (f"masks/{index}.png", [])}
        found.append(written(folder, item(f"i{index}", assets), f"i{index}.json"))
    made = [pystac.Item.from_dict(json.loads(path.read_text())) for path in found]
    more = {"label:assets": ["image"]} if keys else {}
    return [
        *made,
        *(
            label_item(f"l{index}", f"./i{index}.json", f"masks/{index}.png", "raster_labels", **more)
            for index in range(6)
        ),
    ]


def nested(folder: Path) -> Path:
    for index in range(6):
        written(folder, both(index), f"s{index}.json")
    catalog(folder, "inner.json", ("item", "./s3.json"), ("item", "s4.json"), ("item", "s5.json"), kind="Collection")
    links = [
        ("self", "https://a.org/c.json"),
        ("root", "./c.json"),
        ("child", "./inner.json"),
        ("parent", "../no.json"),
    ]
    return catalog(folder, "c.json", *links, *(("item", f"s{index}.json") for index in range(3)))


def by_own_address(folder: Path) -> Path:
    made = separate(folder)
    for one in made[:6]:
        one.add_link(pystac.Link("self", f"https://a.org/items/{one.id}"))
        (folder / f"{one.id}.json").unlink()
    for one in made[6:]:
        one.clear_links("source")
        one.add_link(pystac.Link("source", f"https://a.org/items/i{one.id[1:]}"))
    return collected(folder, made)


STAC: dict[str, Callable[[Path], Path]] = {
    "image and labels in one item": lambda folder: collected(folder, [both(index) for index in range(6)]),
    "another extension": lambda folder: collected(folder, [both(index) for index in range(6)], "search.geojson"),
    "label items": lambda folder: collected(folder, separate(folder)),
    "label items that name the asset": lambda folder: collected(folder, separate(folder, keys=True)),
    "label items whose sources are beside them": lambda folder: collected(folder, separate(folder)[6:]),
    "sources by their own address": by_own_address,
    "a catalogue with a collection": nested,
    "keys without roles": lambda folder: collected(
        folder, [item(str(i), {"image": (f"images/{i}.png", []), "mask": (f"masks/{i}.png", [])}) for i in range(6)]
    ),
    "one image without role or key": lambda folder: collected(
        folder, [item(str(i), {"rgb": (f"images/{i}.png", []), "gt": (f"masks/{i}.png", ["label"])}) for i in range(6)]
    ),
    "absolute and escaped": lambda folder: collected(
        folder,
        [
            item(str(i), {"image": ((folder / f"images/{i}.png").as_uri(), []), "label": (f"m%61sks/{i}.png", [])})
            for i in range(6)
        ],
    ),
}


@pytest.mark.parametrize("write", STAC.values(), ids=STAC)
def test_stac_gives_the_pairs_of_the_folder(write: Callable[[Path], Path], pairs_folder: Path) -> None:
    expected = find_pairs(pairs_folder)
    found = find_pairs(write(pairs_folder))
    assert found.problems == ()
    assert [(p.key, p.image.resolve(), p.mask.resolve()) for p in found.pairs] == [
        (p.key, p.image, p.mask) for p in expected.pairs
    ]


@pytest.mark.parametrize("name", ["split", "ml-aoi:split"])
def test_the_property_split_is_kept_to(name: str, pairs_folder: Path) -> None:
    words = [word.replace("validation", "validate") for word in SPLIT]
    path = collected(pairs_folder, [both(index, **{name: word}) for index, word in enumerate(words)])
    assert [pair.subset for pair in find_pairs(path).pairs] == SPLIT
    path = collected(pairs_folder, [both(index, **({name: "train"} if index else {})) for index in range(6)])
    assert "1 image(s) have no split (item scene 0)" in find_pairs(path).problems[0]


def test_one_item_with_features_is_a_map(map_folder: Path) -> None:
    made = item("a", {"image": ("ortho.tif", []), "labels": ("labels.geojson", [])}, **{"label:type": "vector"})
    expected = find_pairs(map_folder)
    assert find_pairs(written(map_folder, made, "item.json")) == expected
    source = written(map_folder, item("b", {"ortho": ("ortho.tif", ["data"])}), "b.json")
    made = label_item("l", source.name, "labels.geojson")
    made.properties["label:type"] = "vector"
    assert find_pairs(collected(map_folder, [made])) == expected


def raw(content: object) -> Callable[[Path], Path]:
    return lambda folder: table(folder, json.dumps(content), name="items.json")


def circle(folder: Path) -> Path:
    catalog(folder, "b.json", ("child", "a.json"))
    return catalog(folder, "a.json", ("child", "b.json"))


def rasters_of_a_label_item(folder: Path) -> Path:
    made = label_item("l", None, "masks/0.png", "a")
    made.add_asset("b", pystac.Asset("masks/1.png"))
    made.add_link(pystac.Link("source", written(folder, item("i", {"image": ("images/0.png", [])}), "i.json").name))
    return collected(folder, [made])


NO_STAC: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no JSON": (lambda folder: table(folder, "image,label", name="items.json"), "cannot be read as JSON"),
    "a list": (raw([1]), "it is no STAC"),
    "another object": (raw({"classes": []}), "it is no STAC"),
    "GeoJSON": (raw({"type": "FeatureCollection", "features": [{"type": "Feature"}]}), "GeoJSON that are no STAC"),
    "no features": (raw({"type": "FeatureCollection", "features": []}), "lists no image with labels"),
    "features that are none": (raw({"type": "FeatureCollection", "features": 3}), "it is no STAC"),
    "an item without id": (raw({"type": "Feature", "stac_version": "1.0.0"}), "id is missing"),
    "an asset without address": (
        raw({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": {"image": {}}}), "href is missing"
    ),
    "assets that are none": (
        raw({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": [1]}), r"its assets are \[1\]"
    ),
    "an asset that is none": (
        raw({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": {"image": 5}}), "and no mapping of assets"
    ),
    "links that are none": (
        raw({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": None, "links": 5}), "its links are 5,"
    ),
    "a link that is none": (
        raw({"type": "Catalog", "stac_version": "1.0.0", "id": "a", "links": ["x"]}), "and no list of links"
    ),
    "a circle": (circle, "b.json links to a.json, which leads back"),
    "itself": (lambda folder: catalog(folder, "a.json", ("child", "a.json")), "a.json links to a.json, which"),
    "no label": (lambda folder: collected(folder, [item("a", {"image": ("images/0.png", [])})]), "a: it has no labels"),
    "no image": (lambda folder: collected(folder, [item("a", {"labels": ("masks/0.png", [])})]), "0 assets that may"),
    "two images": (
        lambda folder: collected(folder, [item("a", {"b1": ("images/0.png", ["data"]), "b2": ("images/1.png", ["data"]),
                                                     "labels": ("masks/0.png", [])})]),
        r"2 assets that may be its image \(b1, b2\)",
    ),
    "two labels": (rasters_of_a_label_item, r"2 assets that may be its labels \(a, b\)"),
    "no source": (lambda folder: collected(folder, [label_item("l", None, "masks/0.png", "a")]), "without a link"),
    "a source that is gone": (
        lambda folder: collected(folder, [label_item("l", "./no.json", "masks/0.png")]), "No item in the catalogue"
    ),
    "a source on a server": (
        lambda folder: collected(folder, [label_item("l", "https://a.org/i", "masks/0.png")]), "a.org/i is on a server"
    ),
    "a source that is no name": (
        lambda folder: collected(folder, [label_item("l", "a%00b.json", "masks/0.png")]), "b.json does not exist"
    ),
    "an asset that is no name": (
        lambda folder: collected(folder, [item("a", {"image": ("a%00.png", []), "labels": ("masks/0.png", [])})]),
        ".png does not exist",
    ),
    "an asset on a server": (
        lambda folder: collected(folder, [item("a", {"image": ("s3://b/0.tif", []), "labels": ("masks/0.png", [])})]),
        "its image s3://b/0.tif is on a server",
    ),
    "another media type": (
        lambda folder: collected(folder, [item("a", {"image": ("classes.yaml", []), "labels": ("masks/0.png", [])})]),
        "classes.yaml is no image",
    ),
    "labels in a table": (
        lambda folder: collected(folder, [item("a", {"image": ("images/0.png", []), "labels": ("classes.yaml", [])})]),
        "classes.yaml are no labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "said"), NO_STAC.values(), ids=NO_STAC)
def test_what_is_no_stac_or_lists_nothing_is_refused(
    write: Callable[[Path], Path], said: str, pairs_folder: Path
) -> None:
    with pytest.raises(DataError, match=said):
        find_pairs(write(pairs_folder))


def test_problems_of_items_are_listed(pairs_folder: Path) -> None:
    made = [both(0), both(0), both(1), item("bare", {"image": ("images/2.png", [])})]
    problems = find_pairs(collected(pairs_folder, made)).problems
    assert len(problems) == 3
    assert "the item scene 0 is there more than once" in problems[0]
    assert "item bare: it has no labels" in problems[1] and "0.png is listed 2 times" in problems[2]
    path = catalog(
        pairs_folder, "c.json", ("item", "none.json"), ("item", written(pairs_folder, both(0), "s.json").name)
    )
    (problem,) = find_pairs(path).problems
    assert "c.json: its link" in problem and "none.json does not exist" in problem
