from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.banded_model import write_banded
from tests.banded_rasters import spec_of
from tests.channel_model import INFO, write_model
from tests.cli.conftest import skystill as skystill
from tests.serve.images import waves, write_tif
from tests.serve.serving import Serving

SIX = spec_of("uint16", 6, ("blue", "green", "red", "nir", "swir16", "swir22"))


@pytest.fixture(scope="session")
def channel_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class of a pixel is its brightest band; in tiles of 96 pixels, so that most images here need several."""
    return write_model(
        tmp_path_factory.mktemp("model") / "channels.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata()
    )


@pytest.fixture(scope="session")
def six_bands_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_banded(tmp_path_factory.mktemp("model") / "six.onnx", SIX)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A GeoTIFF of some hundred tiles, which takes long enough to be seen at work, above all with views=8."""
    path = write_tif(tmp_path_factory.mktemp("large") / "large.tif", waves(1300, 1300), tiled=True, compress="deflate")
    return path.read_bytes()


@pytest.fixture(scope="session")
def service(channel_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service with small limits, for all tests that do not end it."""
    found = Serving(
        tmp_path_factory.mktemp("service"), channel_model, "--max-megapixels=4", "--max-body=16MB", "--jobs=4"
    )
    yield found
    assert found.end() == 0, found.log
    assert "Traceback" not in found.log
    assert list(found.scratch.glob("skystill-*")) == []


@pytest.fixture
def serving(tmp_path: Path, channel_model: Path) -> Iterator[Callable[..., Serving]]:
    """Start services of one test, with its options."""
    started: list[Serving] = []

    def start(*options: str, model: Path = channel_model) -> Serving:
        started.append(Serving(tmp_path / f"service{len(started)}", model, *options))
        return started[-1]

    yield start
    for one in started:
        one.client.close()
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
