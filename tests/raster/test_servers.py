"""A server that fails for a while costs nothing, and one that goes on failing is an error: nothing becomes a hole."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from skystill.api import predict
from skystill.errors import DataError
from skystill.predict import opening
from skystill.raster import buckets, servers
from skystill.raster.buckets import copy_file, find_in_bucket
from skystill.raster.opening import reading_options
from skystill.raster.remote_states import forget_kept
from skystill.raster.servers import ServerFailed
from skystill.raster.source import RasterSource, gdal_environment
from tests.cluster.archives import contents
from tests.raster.failing_server import serving
from tests.s3 import use_server

FAILURES = ("drop", "cut", "stall", "500", "403", "503")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of 8 bits, and one of 16, of which samples decide what is dark and bright. No two parts are alike."""
    found = {kind: tmp_path_factory.mktemp(kind) / "image.tif" for kind in ("uint8", "uint16")}
    for kind, path in found.items():
        values = np.random.default_rng(3).integers(1, 100, (3, 700, 600)).astype(kind)
        values[:, 300:] += 150
        place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 1, 1)}
        with rasterio.open(path, "w", driver="GTiff", width=600, height=700, count=3, dtype=kind, tiled=True,
                           blockxsize=128, blockysize=128, photometric="rgb", **place) as file:  # fmt: skip
            file.write(values)
    return found


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "GDAL_HTTP_LOW_SPEED_TIME": "1",
                        "GDAL_HTTP_MAX_RETRY": "0"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for module in (servers, buckets):
        monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("kind", FAILURES)
def test_a_server_that_fails_for_a_while_costs_nothing(images: dict[str, Path], kind: str) -> None:
    with serving(images["uint8"]) as server, gdal_environment():
        source = RasterSource(server.url)  # its pixels are not read yet
        server.fail(kind, 1 if kind == "stall" else 2)
        found, valid = source.read(0, 700, 0, 600)
        assert server.failures() == 0
        assert valid is None and np.array_equal(found, RasterSource(str(images["uint8"])).read(0, 700, 0, 600)[0])
        assert not source.damaged and not source.notes


@pytest.mark.parametrize("kind", ["drop", "cut", "500"])
def test_one_failure_while_it_is_opened_costs_nothing(images: dict[str, Path], kind: str) -> None:
    with serving(images["uint8"]) as server, gdal_environment():
        server.fail(kind, 1)
        assert RasterSource(server.url).height == 700
        assert server.failures() == 0


def test_samples_are_those_of_the_whole_raster(images: dict[str, Path]) -> None:
    with serving(images["uint16"]) as server, gdal_environment():
        with rasterio.open(server.url):  # its head is kept
            server.fail("cut", 1)
        assert RasterSource(server.url).scale == RasterSource(str(images["uint16"])).scale
        assert server.failures() == 0


@pytest.mark.parametrize("kind", ["drop", "cut", "403"])
def test_one_that_goes_on_failing_is_an_error(images: dict[str, Path], kind: str) -> None:
    with serving(images["uint8"]) as server, gdal_environment():
        source = RasterSource(server.url)
        server.fail(kind, 1000)
        with pytest.raises(ServerFailed, match=r"did not deliver a part of it, asked 3 times .*with --resume"):
            source.read(400, 700, 0, 600)
        assert not source.damaged


def test_the_same_command_goes_on(images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(inputs=[str(images["uint8"])], out=tmp_path / "whole/image.tif")
    with serving(images["uint8"]) as server:
        given = {"inputs": [server.url], "out": tmp_path / "out/image.tif", "resume": True}

        def forget(name: str) -> None:
            forget_kept(name)
            with rasterio.open(name):  # the head of the image is kept, and its pixels are not read yet
                server.fail("drop", 1000)

        with monkeypatch.context() as patched, pytest.raises(ServerFailed):
            patched.setattr(opening, "forget_kept", forget)
            predict(**given)
        assert not (tmp_path / "out/image.tif").exists()
        server.fail("drop", 0)
        predict(**given)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("count", [2, 1000])
@pytest.mark.parametrize("kind", ["drop", "cut", "500", "403"])
def test_a_list_of_names_is_whole(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, count: int
) -> None:
    with serving(images["uint8"]) as server:
        use_server(server.port, monkeypatch)
        server.fail(kind, count)
        if count == 2:
            found = find_in_bucket("s3://bucket/in/", recursive=True)
            assert found is not None and len(found.listing.images) == 1100 and server.failures() == 0
        else:
            with pytest.raises(DataError, match=r"breaks off after 1,000 names, asked 3 times"):
                find_in_bucket("s3://bucket/in/", recursive=True)


def test_a_copy_is_whole(images: dict[str, Path], tmp_path: Path) -> None:
    """GDAL takes an answer that was cut for the end of the file: a list of images had fewer rows."""
    with serving(images["uint8"]) as server:
        server.fail("cut", 2)
        copy_file(server.url, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == images["uint8"].read_bytes() and server.failures() == 0
        server.fail("cut", 1000)
        with pytest.raises(DataError, match=r"cannot be copied to .*only a part of it came"):
            copy_file(server.url, tmp_path / "copy")


def test_every_server_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GDAL_HTTP_LOW_SPEED_TIME" not in reading_options()  # the user's own
    monkeypatch.delenv("GDAL_HTTP_LOW_SPEED_TIME")
    assert reading_options()["GDAL_HTTP_LOW_SPEED_TIME"] == "20"
    assert reading_options()["GDAL_HTTP_LOW_SPEED_LIMIT"] == "1"
