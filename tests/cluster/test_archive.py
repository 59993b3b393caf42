"""Results of a cluster are those of one machine, to the byte, whatever is predicted and however."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from skystill.api import predict, status
from skystill.errors import DataError, RunFolderError, SettingsError, UserError
from skystill.locks import hold_lock
from skystill.predict import Predictor
from skystill.progress import Event, Message, Note, Progress
from skystill.raster.buckets import bucket_address
from tests.channel_model import write_model
from tests.cluster.archives import contents, small_tiles, write_raster
from tests.s3 import Bucket

pytestmark = pytest.mark.usefixtures("short_tasks")


def squares(folder: Path) -> None:
    write_raster(folder / "in/large.tif", 500, 700)
    write_raster(folder / "in/small.tif", 60, 80, 1)


def striped(folder: Path) -> None:
    """Wider than two lanes, in rows: its units go row by row, and are read from a spool."""
    write_raster(folder / "in/wide.tif", 300, 4400, tiled=False, blockysize=16, compress="deflate", blockxsize=None)


def with_holes(folder: Path) -> None:
    path = write_raster(folder / "in/holes.tif", 500, 600, nodata=7)
    with rasterio.open(path, "r+") as file:
        values = file.read()
        values[:, 100:300, 50:450] = 7
        file.write(values)


def of_one_name(folder: Path) -> None:
    for number, place in enumerate(("a", "b", "b/c")):
        write_raster(folder / "in" / place / "sheet.tif", 200, 300, number)


def pictures(folder: Path) -> None:
    """A plain picture, and one that its camera held on its side."""
    (folder / "in").mkdir()
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 255, (30, 40, 3)).repeat(12, 0).repeat(12, 1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "in/plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "in/turned.jpg", exif=exif, quality=95)


CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "everything beside": (squares, {"confidence": True, "probabilities": True, "areas": True, "vector": "gpkg"}),
    "blended": (squares, {"mode": "blend", "confidence": True}),
    "cleaned": (squares, {"cog": True, "smooth": 5, "min_area": "30px", "vector": "geojson", "overlay": True}),
    "resampled": (squares, {"resolution": 0.8}),
    "views": (squares, {"views": "4"}),
    "striped": (striped, {}),
    "striped and blended": (striped, {"mode": "blend"}),
    "nodata": (with_holes, {"mode": "blend", "areas": True}),
    "sub-folders": (of_one_name, {"recursive": True}),
    "pictures": (pictures, {"areas": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_one_machine(tmp_path: Path, address: str, name: str) -> None:
    write, options = CASES[name]
    write(tmp_path)
    given: dict[str, Any] = {"inputs": [str(tmp_path / "in")], "model": small_tiles(tmp_path), "threads": 1, **options}
    whole = predict(out=tmp_path / "whole", **given)
    found = predict(out=tmp_path / "out", dask=address, **given)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {one.source: (one.prediction.pixels, set(one.prediction.notes)) for one in found} == {
        one.source: (one.prediction.pixels, set(one.prediction.notes)) for one in whole
    }
    base = sqlite3.connect(tmp_path / "out/.skystill/manifest.sqlite")
    rows = base.execute("select kind, state, size, digest, seconds, host from pieces").fetchall()
    base.close()
    assert {row[1] for row in rows} == {"done"} and any(row[0] == "units" for row in rows)  # it was cut into pieces
    assert all(size > 0 and len(digest) == 64 and seconds > 0 and host for _, _, size, digest, seconds, host in rows)


@pytest.fixture
def archive(tmp_path: Path, address: str) -> dict[str, Any]:
    squares(tmp_path)
    model = small_tiles(tmp_path)
    return {"inputs": [str(tmp_path / "in")], "model": model, "out": tmp_path / "out", "dask": address}


def test_the_same_command_goes_on_with_what_is_missing(archive: dict[str, Any], tmp_path: Path) -> None:
    assert len(predict(**archive)) == 2
    first = contents(tmp_path / "out")
    said: list[str] = []
    assert predict(**archive, on_progress=lambda event: note(said, event)) == []
    assert said == ["2 inputs are done already; these are all."]
    (tmp_path / "out/large.tif").unlink()
    write_raster(tmp_path / "in/new.tif", 60, 60, 3)  # as of a nightly delivery
    said.clear()
    again = predict(**archive, on_progress=lambda event: note(said, event))
    assert {Path(one.source).name for one in again} == {"large.tif", "new.tif"}
    assert said[0] == (
        "1 inputs are done already; 1 results have gone or changed, and are made again; it goes on with the others."
    )
    now = contents(tmp_path / "out")
    assert {name: now[name] for name in first} == first and set(now) - set(first) == {
        "new.tif",
        "new.qml",
        "new.tif.aux.xml",
    }


def note(said: list[str], event: Event) -> None:
    if isinstance(event, Message | Note):
        said.append(event.text)


def test_progress_is_one_bar_of_all_pixels(archive: dict[str, Any]) -> None:
    events: list[Progress] = []
    predict(**archive, on_progress=lambda event: events.append(event) if isinstance(event, Progress) else None)
    bar = [event for event in events if event.unit == "pixels"]
    assert {event.task for event in bar} == {"2 inputs"}
    done = [event.done for event in bar]
    assert done == sorted(done) and done[-1] == bar[-1].total == 500 * 700 + 60 * 80
    assert all(event.done < event.total for event in bar[:-1])


def test_a_bad_source_is_tried_three_times_and_listed_and_the_rest_is_done(
    archive: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "in/bad.tif").write_bytes(b"no raster")
    with pytest.raises(DataError, match=r"bad\.tif") as error:
        predict(**archive)
    assert error.value.exit_code == 2
    assert {"large.tif", "small.tif"} <= set(contents(tmp_path / "out"))
    base = sqlite3.connect(tmp_path / "out/.skystill/manifest.sqlite")
    found = base.execute("select state, attempts from inputs where source like '%bad.tif'").fetchall()
    base.close()
    assert found == [("failed", 3)]
    write_raster(tmp_path / "in/bad.tif", 60, 60, 3)  # mended
    assert [Path(one.source).name for one in predict(**archive)] == ["bad.tif"]


def test_a_damaged_source_is_predicted_and_listed(archive: dict[str, Any], tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in/damaged.tif", 500, 700, 4, compress="deflate")
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    whole = {**archive, "out": tmp_path / "whole", "dask": None}
    for given in (whole, archive):
        with pytest.raises(UserError, match="rows 256 to 499, columns 256 to 511") as error:
            predict(**given)
        assert str(error.value).count("rows 256") == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(UserError, match="rows 256 to 499"):  # it is still named
        predict(**archive)


def test_a_source_that_changes_is_refused_by_name(archive: dict[str, Any], tmp_path: Path) -> None:
    predict(**archive)
    write_raster(tmp_path / "in/small.tif", 60, 80, 8)
    with pytest.raises(RunFolderError, match=r"changed since .*small\.tif"):
        predict(**archive)
    (tmp_path / "out/small.tif").unlink()
    assert [Path(one.source).name for one in predict(**archive)] == ["small.tif"]


def test_other_settings_are_refused(archive: dict[str, Any]) -> None:
    predict(**archive)
    for change in ({"tile": 192}, {"views": "2"}, {"areas": True}, {"cog": True}):
        with pytest.raises(RunFolderError, match=f"other settings \\({next(iter(change))}\\)"):
            predict(**{**archive, **change})
    assert predict(**{**archive, "threads": 3, "dask": None, "workers": 1}) == []  # these change no result


def test_other_classes_of_the_same_file_are_refused(archive: dict[str, Any], tmp_path: Path) -> None:
    """The file has the same name, and names another class: what is done would have other classes than what is not."""
    named, content = tmp_path / "names.yaml", Predictor(archive["model"]).classes.to_dict()
    named.write_text(yaml.safe_dump(content))
    archive |= {"model": write_model(tmp_path / "of_others.onnx", {}), "classes": str(named)}
    predict(**archive)
    assert predict(**archive) == []
    content["classes"][0]["name"] = "renamed"  # type: ignore[index]
    named.write_text(yaml.safe_dump(content))
    with pytest.raises(RunFolderError, match=r"other settings \(classes\)"):
        predict(**archive)


def test_a_second_command_on_one_output_is_refused(archive: dict[str, Any], tmp_path: Path) -> None:
    for where in (archive, {"dask": None}):  # also the command of one machine
        with (
            hold_lock(tmp_path / "out/.skystill/lock", "out"),
            pytest.raises(RunFolderError, match="in use by another process"),
        ):
            predict(**{**archive, **where})
    assert contents(tmp_path / "out") == {}


def test_refusals_of_one_machine_come_before_the_cluster(archive: dict[str, Any], tmp_path: Path) -> None:
    dead = {**archive, "dask": "tcp://127.0.0.1:1"}
    with pytest.raises(SettingsError, match="whose images are predicted"):
        predict(**{**dead, "out": tmp_path / "in"})
    with pytest.raises(DataError, match="no images there"):
        (tmp_path / "empty").mkdir()
        predict(**{**dead, "inputs": [str(tmp_path / "empty")]})
    with pytest.raises(UserError, match="no class"):
        predict(**{**dead, "vector": "gpkg", "square": "No such class"})


def test_items_are_those_of_one_machine(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of_one_name(tmp_path)
    listed: dict[str, Any] = {"inputs": "in", "recursive": True, "stac": True}
    listed |= {"model": small_tiles(tmp_path), "threads": 1}
    predict(out=Path("whole items"), **listed)
    predict(out=Path("items"), dask=address, **listed)
    files = [
        sorted(path.relative_to(folder) for path in folder.rglob("*.json"))
        for folder in map(Path, ("items", "whole items"))
    ]
    assert files[0] == files[1] and len(files[0]) == 4


@pytest.fixture
def to_bucket(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> dict[str, Any]:
    """Two rasters in sub-folders, whose results go to a bucket with files beside them."""
    monkeypatch.chdir(tmp_path)
    write_raster(Path("in/a.tif"), 500, 300, 1)
    write_raster(Path("in/b/a.tif"), 60, 80, 2)
    given: dict[str, Any] = {"inputs": "in", "model": small_tiles(tmp_path), "threads": 1, "recursive": True}
    given |= {"areas": True, "confidence": True, "vector": "geojson"}
    predict(out=Path("whole"), **given)
    return {**given, "out": bucket / "out/", "dask": address}


def stored(bucket: Bucket) -> dict[str, bytes]:
    return {key.removeprefix("out/"): bucket.get(key) for key in bucket.list() if key.startswith("out/")}


def test_results_in_a_bucket_are_those_of_a_folder(to_bucket: dict[str, Any], bucket: Bucket, tmp_path: Path) -> None:
    found = predict(**to_bucket)
    assert {bucket_address(one.prediction.path) for one in found} == {bucket / "out/a.tif", bucket / "out/b/a.tif"}
    assert all(bucket_address(path) for one in found for path in one.beside)
    assert stored(bucket) == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".skystill-out-*"))
    Path("grid.yaml").write_text("{crs: EPSG:32640, resolution: 0.7}")
    joined = {**to_bucket, "mosaic": Path("grid.yaml"), "confidence": False}
    predict(**{**joined, "dask": None, "out": Path("joined")})
    (mosaic,) = predict(**{**joined, "out": bucket / "m.tif"})
    assert bucket_address(mosaic.prediction.path) == bucket / "m.tif"
    assert bucket.get("m.tif") == Path("joined/mosaic.tif").read_bytes()


def test_what_is_not_in_the_bucket_yet_gets_there_with_the_same_command(
    to_bucket: dict[str, Any], bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_disk(source: Path, target: str) -> None:
        raise DataError("the bucket has gone.")

    with monkeypatch.context() as patch:
        patch.setattr("skystill.predict.to_bucket.copy_file", no_disk)
        with pytest.raises(DataError, match=r"has gone.*is kept in \.skystill-out-"):
            predict(**{**to_bucket, "stac": True})
    assert stored(bucket) == {} and status(out=to_bucket["out"]).done == 2
    Path("in/bad.tif").write_bytes(b"no raster")
    said: list[str] = []
    with pytest.raises(DataError, match=r"bad\.tif"):
        predict(**{**to_bucket, "stac": True}, on_progress=lambda event: note(said, event))
    assert said[-2].startswith("2 inputs are done already") and said[-1].endswith("or delete it.")
    assert {name: content for name, content in stored(bucket).items() if ".json" not in name} == {
        name: content for name, content in contents(tmp_path / "whole").items() if ".json" not in name
    }
    Path("in/bad.tif").unlink()
    assert predict(**{**to_bucket, "stac": True}) == []  # all were done before
    assert {name for name in stored(bucket) if name.endswith("json")} == {
        *("collection.json", "a.stac.json", "b/a.stac.json", "a.geojson", "b/a.geojson")
    }
    assert not list(tmp_path.glob(".skystill-out-*"))
