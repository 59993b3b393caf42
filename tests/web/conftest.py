"""One browser and a few pages for all tests of the page."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skystill.api import export
from skystill.model.bundled import bundled_model
from skystill.raster.input_spec import Band, InputSpec
from tests.banded_model import write_banded
from tests.channel_model import INFO, write_model
from tests.web.browser import Browser, open_browser

VALUES = InputSpec(
    tuple(Band(name, number, 1500, 700, 0, 4000) for number, name in enumerate(("red", "nir"), 1)), "uint16"
)


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(autouse=True)
def pages_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.predict.web.check.find_browser", lambda: None)  # it takes seconds


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model; one whose class is the brightest channel; one that is fed the values of two bands."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "bundled": bundled_model(),
        "channel": write_model(folder / "channel.onnx", replace(INFO, tile_size=80).to_metadata()),
        "values": write_banded(folder / "values.onnx", VALUES),
    }


@pytest.fixture(scope="package")
def pages(models: dict[str, Path]) -> dict[str, Path]:
    folder = models["channel"].parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skystill.predict.web.parts._EXAMPLE_SIDE", 192)  # large scenes take seconds
        patch.setattr("skystill.predict.web.check.find_browser", lambda: None)  # as does trying each page
        return {name: export(run=model, format="html", out=folder / f"{name}.html") for name, model in models.items()}
