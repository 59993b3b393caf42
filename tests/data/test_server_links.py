"""STAC on a server: its links are followed there, and never to files of this computer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skystill.data import server_links
from skystill.data.image_lists import read_image_list
from skystill.data.server_links import server_address
from skystill.errors import DataError
from tests.raster.folder_server import FolderServer, serving
from tests.s3 import Bucket


def link(href: object, rel: str = "item") -> dict[str, str]:
    return {"rel": rel, "href": str(href)}


def catalogue(path: Path, *links: dict[str, str]) -> Path:
    return write(path, {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "-", "links": links})


def item(path: Path, href: str = "./image.tif", name: str = "a") -> Path:
    assets = {"image": {"href": href, "roles": ["data"]}}
    return write(path, {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": {}, "assets": assets})


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def www(tmp_path: Path) -> Path:
    return item(tmp_path / "www/north/a/a.json").parents[2]


@pytest.fixture
def server(www: Path, tmp_path: Path) -> Iterator[FolderServer]:
    with serving(www, tmp_path / "log") as server:
        yield server


def nested(www: Path) -> None:
    """A catalogue with a catalogue and an item in folders of their own."""
    item(www / "b/b.json", "../b.tif", "b")
    catalogue(www / "north/catalog.json", link("./a/a.json"), link("../catalog.json", "root"))
    catalogue(www / "catalog.json", link("./north/catalog.json", "child"), link("b/b.json"))


def test_links_and_images_are_relative_to_the_file_that_names_them(www: Path, server: FolderServer) -> None:
    nested(www)
    url = f"{server.url}/etag"
    found = read_image_list(f"{url}/catalog.json")
    assert [(image.source, image.below) for image in found] == [
        (f"{url}/north/a/image.tif", Path("north/a")), (f"{url}/b.tif", Path()),
    ]  # fmt: skip
    here = read_image_list(str(www / "catalog.json"))
    assert [(Path(image.source).resolve(), image.below) for image in here] == [
        (www / "north/a/image.tif", Path("north/a")), (www / "b.tif", Path()),
    ]  # fmt: skip


def test_links_in_a_bucket_and_from_it_to_a_web_server(www: Path, server: FolderServer, bucket: Bucket) -> None:
    bucket.put("in/catalog.json", catalogue(www / "c.json", link("items/b.json"), link(f"{server.url}/etag/c2.json")))
    bucket.put("in/items/b.json", item(www / "b.json", "b.tif", "b"))
    catalogue(www / "c2.json", link("north/a/a.json"))
    assert [image.source for image in read_image_list(bucket / "in/catalog.json")] == [
        bucket / "in/items/b.tif", f"{server.url}/etag/north/a/image.tif",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "href",
    ["{local}", "file://{local}", "/vsizip/{local}", "/vsicurl/file://{local}", "zip+file://{local}!a.json",
     "{local}+s3://a.json", "/vsisubfile/0_99999,{local}", "/vsicached?file={local}&/vsicurl/"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["link", "image"])
def test_no_file_of_this_computer_is_read(
    where: str, href: str, www: Path, server: FolderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    href = href.format(local=item(tmp_path / "own/secret.json"))
    write_it = {"link": lambda path: catalogue(path, link(href)), "image": lambda path: item(path, href)}
    write_it[where](www / "list.json")
    with pytest.raises(DataError, match=rf"its {where} .* is (not on a server|a file of this computer)") as error:
        read_image_list(f"{server.url}/etag/list.json")
    assert error.value.exit_code == 2
    assert ("Save the items as one item collection" in str(error.value)) == (where == "link")


def test_a_server_cannot_lead_to_a_file_of_this_computer(www: Path, server: FolderServer, tmp_path: Path) -> None:
    own = item(tmp_path / "own/secret.json")
    catalogue(www / "list.json", link(f"{server.url}/moved/file://{own}"))
    with pytest.raises(DataError, match="cannot be copied"):
        read_image_list(f"{server.url}/etag/list.json")


def test_a_link_to_nothing_is_named_by_its_address(www: Path, server: FolderServer) -> None:
    catalogue(www / "list.json", link("./none.json"))
    with pytest.raises(DataError, match=rf"^{server.url}/etag/none\.json cannot be copied"):
        read_image_list(f"{server.url}/etag/list.json")
    (www / "list.json").write_text("no JSON")
    with pytest.raises(DataError, match=rf"^{server.url}/etag/list\.json"):
        read_image_list(f"{server.url}/etag/list.json")


def test_links_that_have_no_end_are_refused(www: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(www / "north/catalog.json", link("../catalog.json", "child"))
    catalogue(www / "catalog.json", link("north/catalog.json", "child"))
    with pytest.raises(DataError, match="leads back to it"):
        read_image_list(f"{server.url}/etag/catalog.json")
    catalogue(www / "catalog.json", *(link("north/a/a.json") for _ in range(9)))
    monkeypatch.setattr(server_links, "MOST_FILES", 5)
    with pytest.raises(DataError, match=r"at most 5 files on servers are read\. Save the items as one item collection"):
        read_image_list(f"{server.url}/etag/catalog.json")


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("../b.tif", "https://a.org/b.tif"),
        ("x y.tif", "https://a.org/in/x y.tif"),
        ("x%20y.tif", "https://a.org/in/x y.tif"),
        ("https://b.org/x%20y.tif", "https://b.org/x%20y.tif"),
        ("s3://b/a.tif", "s3://b/a.tif"),
        ("/vsis3/b/a.tif", "/vsis3/b/a.tif"),
        ("/vsizip//vsicurl/https://b.org/a.zip/a.tif", "/vsizip//vsicurl/https://b.org/a.zip/a.tif"),
        ("/vsizip/{/vsis3/b/a.zip}/a.tif", "/vsizip/{/vsis3/b/a.zip}/a.tif"),
        ("zip+https://b.org/a.zip!a.tif", "zip+https://b.org/a.zip!a.tif"),
    ],
)
def test_addresses_on_servers(href: str, address: str) -> None:
    assert server_address(href, "https://a.org/in/list.json?key=1", "image", is_escaped=True) == address
