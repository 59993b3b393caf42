"""A raster on a server that is replaced by another of the same size: no result is a mixture of both."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from skystill import api
from skystill.errors import PredictionStopped, RunFolderError, SourceChanged
from skystill.predict import Predictor, mosaic_batch
from skystill.progress import Event, Note, Progress
from tests.channel_model import INFO, write_model
from tests.raster.folder_server import FolderServer, serving

SIDE = 512


def raster(path: Path, seed: int) -> Path:
    """A raster whose size in bytes does not depend on its pixels. Each seed has a time of its own."""
    path.parent.mkdir(exist_ok=True)
    form = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "crs": "EPSG:32640"}
    place = rasterio.transform.from_origin(300_000, 2_800_000, 1, 1)
    with rasterio.open(path, "w", **form, transform=place, tiled=True, blockxsize=128, blockysize=128) as file:
        file.write(np.random.default_rng(seed).integers(1, 256, (3, SIDE, SIDE), np.uint8))
    os.utime(path, (seed, seed))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return raster(tmp_path / "www/a.tif", 1)


@pytest.fixture
def server(source: Path, tmp_path: Path) -> Iterator[FolderServer]:
    with serving(source.parent, tmp_path / "log") as server:
        yield server


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(write_model(tmp_path / "m.onnx", replace(INFO, tile_size=128).to_metadata()), threads=1)


def after_units(count: int, act: Callable[[], object], said: list[str]) -> Callable[[Event], None]:
    seen: list[Event] = []

    def on_progress(event: Event) -> None:
        if isinstance(event, Note):
            said.append(event.text)
        if isinstance(event, Progress) and event.unit == "pixels":
            seen.append(event)
            if len(seen) == count:
                act()

    return on_progress


def stop() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["etag", "date", "both"])
def test_a_prediction_does_not_go_on_with_another_raster(
    kind: str, source: Path, server: FolderServer, predictor: Predictor, tmp_path: Path
) -> None:
    url, out, said = f"{server.url}/{kind}/a.tif", tmp_path / "o.tif", list[str]()
    whole = predictor.predict(url, tmp_path / "whole.tif").path.read_bytes()
    with pytest.raises(PredictionStopped):
        predictor.predict(url, out, on_progress=after_units(2, stop, said))
    raster(source, 2)
    with pytest.raises(RunFolderError, match=r"a\.tif, or a file that it is made of, has changed since"):
        predictor.predict(url, out, resume=True)
    raster(source, 1)
    assert predictor.predict(url, out, resume=True, on_progress=after_units(0, stop, said)).path.read_bytes() == whole
    assert not [text for text in said if "nobody could look" in text]


def test_a_note_says_that_nobody_could_look(
    source: Path, server: FolderServer, predictor: Predictor, tmp_path: Path
) -> None:
    url, said = f"{server.url}/none/a.tif", list[str]()
    with pytest.raises(PredictionStopped):
        predictor.predict(url, tmp_path / "o.tif", on_progress=after_units(2, stop, said))
    assert not [text for text in said if "nobody could look" in text]
    predictor.predict(url, tmp_path / "o.tif", resume=True, on_progress=after_units(0, stop, said))
    found = [text for text in said if "nobody could look" in text]
    assert len(found) == 1 and url in found[0] and f"delete {tmp_path / '.unfinished-o.tif'}" in found[0]


@pytest.mark.parametrize("name", ["etag/a.tif", "none/a.tif", "date/a.vrt"])
def test_the_next_prediction_of_a_process_reads_the_new_raster(
    name: str, source: Path, server: FolderServer, predictor: Predictor, tmp_path: Path
) -> None:
    """GDAL keeps what it has read, and workers live long."""
    with rasterio.open(source) as file:
        rasterio.shutil.copy(file, source.with_suffix(".vrt"), driver="VRT")
    predictor.predict(f"{server.url}/{name}", tmp_path / "old.tif")
    raster(source, 2)
    predictor.predict(f"{server.url}/{name}", tmp_path / "new.tif")
    predictor.predict(source, tmp_path / "whole.tif")
    assert (tmp_path / "new.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_raster_that_is_replaced_while_it_is_read(
    source: Path, server: FolderServer, predictor: Predictor, tmp_path: Path
) -> None:
    url, out = f"{server.url}/etag/a.tif", tmp_path / "out/o.tif"
    with pytest.raises(SourceChanged, match=r"etag/a\.tif was replaced on its server"):
        predictor.predict(url, out, on_progress=after_units(2, lambda: raster(source, 2), []))
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["etag", "none"])
def test_a_mosaic_does_not_keep_pieces_of_the_old_raster(
    kind: str, source: Path, server: FolderServer, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, said = tmp_path / "grid.yaml", list[str]()
    grid.write_text("{crs: EPSG:32640, resolution: 1}")
    given: dict[str, Any] = {
        "inputs": [f"{server.url}/{kind}/a.tif"], "mosaic": grid, "model": predictor.path, "threads": 1,
        "on_progress": after_units(0, stop, said),
    }  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(PredictionStopped):
        patch.setattr(mosaic_batch, "write_mosaic", lambda *arguments: stop())
        api.predict(out=tmp_path / "o.tif", **given)
    raster(source, 2)
    api.predict(out=tmp_path / "o.tif", resume=True, **given)
    api.predict(out=tmp_path / "whole.tif", **given)
    is_new = (tmp_path / "o.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert is_new == (kind == "etag")
    assert bool([text for text in said if "nobody could look" in text]) != is_new
