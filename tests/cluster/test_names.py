"""Inputs under names of GDAL that are relative: workers, which have another current folder, predict the same files."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from skystill.api import predict
from skystill.errors import SettingsError
from tests.cluster.archives import contents, small_tiles, write_raster


@pytest.fixture
def given(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings, and a raster in an archive of the current folder."""
    write_raster(tmp_path / "in/a.tif", 60, 80)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return {"model": small_tiles(tmp_path), "out": tmp_path / "out", "dask": address}


def test_workers_find_what_a_relative_name_means_here(given: dict[str, Any], tmp_path: Path) -> None:
    given["inputs"] = ["/vsizip/a.zip/a.tif"]
    predict(**given | {"out": tmp_path / "here", "dask": None})
    assert len(predict(**given)) == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "here")
    assert predict(**given) == []


def test_a_name_that_workers_may_take_for_another_file_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"vrt://in/a\.tif\?bands=1,2,3 is a name of GDAL"):
        predict(**given, inputs=["vrt://in/a.tif?bands=1,2,3"])
    assert not list(given["out"].glob("*.tif"))
