"""What servers say of rasters, by which a change is found, and what it takes to ask them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from skystill.errors import SourceChanged
from skystill.raster.remote_states import RemoteState, ask_server, remote_file, uncertain_notes
from skystill.raster.source_states import source_states
from skystill.raster.states import FileStates
from tests.raster.folder_server import FolderServer, serving
from tests.s3 import Bucket


def raster(path: Path, value: int) -> Path:
    """A raster whose size in bytes does not depend on its value. Each value has a time of its own."""
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=3, dtype="uint8") as file:
        file.write(np.full((3, 8, 8), value, np.uint8))
    os.utime(path, (10**9 + value,) * 2)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    raster(tmp_path / "www/a.tif", 1)
    with serving(tmp_path / "www", tmp_path / "log") as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "certain", "changes"),
    [("etag", True, True), ("date", True, True), ("both", True, True), ("none", False, False)],
)
def test_another_file_of_the_same_size_has_another_digest(
    kind: str, certain: bool, changes: bool, server: FolderServer, tmp_path: Path
) -> None:
    url = f"{server.url}/{kind}/a.tif"
    before = source_states(url)
    digest = before.shared_digest
    assert before.uncertain == ([] if certain else [url])
    assert source_states(url).shared_digest == digest
    raster(tmp_path / "www/a.tif", 2)
    assert (source_states(url).shared_digest != digest) == changes
    before.check()  # of local files
    if not changes:
        return before.check_all()
    with pytest.raises(SourceChanged, match=r"a\.tif was replaced on its server while it was read") as error:
        before.check_all()
    assert error.value.exit_code == 2


def test_a_longer_file_has_another_digest_without_etag(server: FolderServer, tmp_path: Path) -> None:
    digest = source_states(f"{server.url}/none/a.tif").shared_digest
    (tmp_path / "www/a.tif").write_bytes(b"II*\0")
    assert source_states(f"{server.url}/none/a.tif").shared_digest != digest


def test_a_server_is_asked_once_and_only_for_a_digest(server: FolderServer) -> None:
    url = f"{server.url}/etag/a.tif"
    states = FileStates([url, f"/vsicurl/{url}"])
    states.check()
    assert not states.changed and not states and server.requests() == []
    assert states.digest and states.shared_digest and states.uncertain == []
    assert server.requests() == ["HEAD /etag/a.tif"]


def test_a_server_that_does_not_answer_says_nothing(server: FolderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.raster.remote_states.PAUSES", (0.0,))
    url = f"{server.url}/etag/none.tif"
    assert ask_server(remote_file(url), url) == RemoteState()
    assert server.requests() == ["HEAD /etag/none.tif"] * 2


def test_the_sources_of_a_vrt_and_the_archive_of_a_file_are_asked(server: FolderServer, tmp_path: Path) -> None:
    www = tmp_path / "www"
    with rasterio.open(www / "a.tif") as file:
        rasterio.shutil.copy(file, www / "a.vrt", driver="VRT")
    text = (www / "a.vrt").read_text()
    assert 'relativeToVRT="1">a.tif<' in text
    shutil.make_archive(str(tmp_path / "www/a"), "zip", www, "a.tif")
    names = [f"{server.url}/etag/a.vrt", f"/vsizip//vsicurl/{server.url}/date/a.zip/a.tif"]
    before = [source_states(name).shared_digest for name in names]
    raster(www / "a.tif", 2)
    (www / "a.zip").unlink()
    shutil.make_archive(str(tmp_path / "www/a"), "zip", www, "a.tif")
    os.utime(www / "a.zip", (5, 5))
    assert all(source_states(name).shared_digest != one for name, one in zip(names, before, strict=True))


def test_an_object_of_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    address = bucket.put("in/a.tif", raster(tmp_path / "www/a.tif", 1))
    digest = source_states(address).shared_digest
    assert source_states(address).shared_digest == digest and source_states(address).uncertain == []
    bucket.put("in/a.tif", raster(tmp_path / "www/a.tif", 2))
    assert source_states(address).shared_digest != digest


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("https://a.org/a.tif?x=1&y", "/vsicurl/https://a.org/a.tif?x=1&y"),
        ("s3://b/a.tif", "/vsis3/b/a.tif"),
        ("/vsis3_streaming/b/a.tif", "/vsis3/b/a.tif"),
        ("/vsizip//vsicurl/https://a.org/a.zip/in/t.tif", "/vsicurl/https://a.org/a.zip"),
        ("zip+https://a.org/a.zip!t.tif", "/vsicurl/https://a.org/a.zip"),
        ("/vsizip/{/vsicurl/https://a.org/a?key=1}/t.tif", "/vsicurl/https://a.org/a?key=1"),
        ("/vsigzip//vsigs/b/t.tif.gz", "/vsigs/b/t.tif.gz"),
    ],
)
def test_the_file_on_a_server_that_a_name_means(name: str, file: str) -> None:
    assert remote_file(name) == file


def test_what_a_server_says_only_once_does_not_count() -> None:
    whole = RemoteState('"a"', "Mon", "3")
    assert not whole.differs(RemoteState()) and not whole.differs(RemoteState('"a"', "", "3"))
    assert whole.differs(RemoteState('"b"')) and whole.differs(RemoteState('"a"', "Tue", "3"))
    assert uncertain_notes([], "work") == []
