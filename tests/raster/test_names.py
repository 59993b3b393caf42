"""Names of GDAL for files in archives, and parts of files: they mean the same file in another current folder."""

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from skystill.errors import SettingsError, SourceChanged
from skystill.raster.names import absolute_name, local_file_of
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment
from skystill.raster.states import FileStates

NAMES = {
    "t.tif": "t.tif", "file:t.tif": "t.tif", "file://t.tif": "t.tif",
    "/vsisubfile/0_999999,t.tif": "t.tif", "/vsicached?file=t.tif": "t.tif",
    "/vsizip/z.zip/t.tif": "z.zip", "/vsizip/{z.zip}/t.tif": "z.zip", "/vsizip/./z.zip/t.tif": "z.zip",
    "/vsizip/vsisubfile/0,z.zip/t.tif": "z.zip",
    "/vsitar/z.tar/t.tif": "z.tar", "/vsigzip/t.tif.gz": "t.tif.gz", "gzip://t.tif.gz": "t.tif.gz",
}  # fmt: skip
"""Names that GDAL opens, and the file of the current folder that each of them means."""


def filled(folder: Path, value: int) -> Path:
    """A folder with a raster of one value, and the archives that hold it."""
    folder.mkdir()
    path = folder / "t.tif"
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8") as file:
        file.write(np.full((1, 8, 8), value, np.uint8))
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.write(path, "t.tif")
    with tarfile.open(folder / "z.tar", "w") as tar:
        tar.add(path, "t.tif")
    (folder / "t.tif.gz").write_bytes(gzip.compress(path.read_bytes()))
    return folder


def value_of(name: str) -> int:
    with gdal_environment(), open_raster(name) as file:
        return int(file.read(1)[0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_the_same_file_in_another_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = filled(tmp_path / "here", 7), filled(tmp_path / "there", 9)
    monkeypatch.chdir(here)
    whole = absolute_name(name)
    assert value_of(name) == 7 and absolute_name(whole) == whole
    monkeypatch.chdir(there)
    assert value_of(name) == 9 and value_of(whole) == 7


@pytest.mark.parametrize(("name", "file"), NAMES.items())
def test_the_file_of_a_name_is_the_one_that_may_change(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(filled(tmp_path / "here", 7))
    found = local_file_of(name)
    assert found is not None and Path(found).samefile(file)
    states = FileStates([name])
    states.check()
    os.utime(file, ns=(0, 0))
    with pytest.raises(SourceChanged, match=file):
        states.check()


@pytest.mark.parametrize(
    "name",
    ["https://a.org/a.tif", "s3://a/b.tif", "/vsicurl/https://a.org/a.tif", "zip+https://a.org/a.zip!t.tif",
     "/vsizip//vsicurl/https://a.org/a.zip/t.tif", "/data/none.tif"],
)  # fmt: skip
def test_names_that_mean_the_same_everywhere_stay(name: str) -> None:
    assert absolute_name(name) == name


def test_a_file_that_does_not_exist_is_looked_for_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_name("none.tif") == str(tmp_path / "none.tif")
    assert absolute_name("GTIFF_DIR:1:t.tif") == str(tmp_path / "GTIFF_DIR:1:t.tif")  # layers are not read
    assert absolute_name("/vsizip/none.zip/t.tif") == f"/vsizip/{tmp_path / 'none.zip/t.tif'}"


@pytest.mark.parametrize("name", ["vrt://t.tif?bands=1", 'HDF5:"t.h5"://v'])
def test_a_name_without_a_path_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"may take for another file\. Give the path") as error:
        absolute_name(name)
    assert error.value.exit_code == 2
