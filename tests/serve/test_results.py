"""Results of the service are those of `skystill predict`, byte by byte."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.api import predict
from tests.banded_rasters import pixels_of, write_bands
from tests.serve.conftest import SIX
from tests.serve.images import UTM, waves, write_images, write_tif
from tests.serve.serving import Serving

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".tif": "image/tiff"}
FORMS = {"png": "image/png", "tif": "image/tiff; application=geotiff", "geojson": "application/geo+json"}


def predicted(image: Path, model: Path, out: Path, **settings: Any) -> bytes:
    """What `skystill predict` writes for it."""
    predict(inputs=str(image), model=model, out=out, **settings)
    if settings.get("vector"):
        return out.with_suffix(".geojson").read_bytes()
    return (out.with_name("out-confidence.tif") if settings.get("confidence") else out).read_bytes()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("images"))


NAMES = [
    "clear.png", "degrees.tif", "four.tif", "grey.png", "lossless.webp", "nodata.tif", "one-tile.png", "palette.png",
    "plain.tif", "progressive.jpg", "rgb.png", "sixteen.tif", "strips.tif", "turned.jpg",
]  # fmt: skip


def test_every_image_is_in_the_table(images: dict[str, Path]) -> None:
    assert list(images) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_predict(
    name: str, images: dict[str, Path], service: Serving, channel_model: Path, tmp_path: Path
) -> None:
    image = images[name]
    body, kind = image.read_bytes(), KINDS[image.suffix]
    for form, media_type in FORMS.items():
        answer = service.post(f"/predict?f={form}", body, kind)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == media_type
        vector = {"vector": "geojson"} if form == "geojson" else {}
        out = tmp_path / ("out.png" if form == "png" else "out.tif")
        assert answer.content == predicted(image, channel_model, out, **vector), form
    by_default = service.post("/predict", body)
    placed = name in ("degrees.tif", "four.tif", "nodata.tif", "sixteen.tif", "strips.tif")
    assert by_default.headers["content-type"] == FORMS["tif" if placed else "png"]


def test_the_classes_are_those_of_the_pixels(images: dict[str, Path], service: Serving) -> None:
    """Without SkyStill: the class is the brightest band, nodata is 255, and the position is kept."""
    bands = waves(120, 150)
    found = np.asarray(Image.open(io.BytesIO(service.post("/predict?f=png", images["rgb.png"].read_bytes()).content)))
    assert np.array_equal(found, bands.argmax(axis=0))
    answer = service.post("/predict", images["nodata.tif"].read_bytes())
    with rasterio.MemoryFile(answer.content) as memory, memory.open() as file:
        truth = bands.argmax(axis=0)
        truth[10:40, 50:140] = 255
        assert np.array_equal(file.read(1), truth)
        assert (str(file.crs), file.nodata, file.res) == (UTM, 255, (0.5, 0.5))
    turned = np.asarray(Image.open(io.BytesIO(service.post("/predict", images["turned.jpg"].read_bytes()).content)))
    assert turned.shape == (150, 120)
    assert (turned == np.rot90(bands, -1, (1, 2)).argmax(axis=0)).mean() > 0.97  # JPEG loses a little


@pytest.mark.parametrize(
    ("name", "query", "settings"),
    [
        ("rgb.png", "smooth=5", {"smooth": 5}),
        ("rgb.png", "min_area=30px", {"min_area": "30px"}),
        ("strips.tif", "min_area=12.5m2&f=geojson", {"min_area": "12.5m2", "vector": "geojson"}),
        ("strips.tif", "simplify=1m&f=geojson", {"simplify": "1m", "vector": "geojson"}),
        ("strips.tif", "square=Building,Road&f=geojson", {"square": "Building,Road", "vector": "geojson"}),
        ("four.tif", "bands=4,3,2", {"bands": "4,3,2"}),
        ("grey.png", "bands=1", {"bands": "1"}),
        ("strips.tif", "resolution=1.5", {"resolution": 1.5}),
        ("sixteen.tif", "scale=0,4095", {"scale": "0,4095"}),
        ("rgb.png", "views=4", {"views": "4"}),
        ("nodata.tif", "confidence=true", {"confidence": True}),
        ("rgb.png", "confidence=true&smooth=3", {"confidence": True, "smooth": 3}),
        ("rgb.png", "confidence=false&f=png", {}),
    ],
)
def test_parameters_are_those_of_predict(
    name: str, query: str, settings: dict[str, Any], images: dict[str, Path], service: Serving, channel_model: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    answer = service.post(f"/predict?{query}", images[name].read_bytes())
    assert answer.status_code == 200, answer.text
    out = tmp_path / ("out.png" if answer.headers["content-type"] == "image/png" else "out.tif")
    out = out.with_suffix(".tif") if settings.get("vector") or settings.get("confidence") else out
    assert answer.content == predicted(images[name], channel_model, out, **settings)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("image/png", "png"),
        ("image/tiff", "tif"),
        ("image/tiff; application=geotiff", "tif"),
        ("application/geo+json", "geojson"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("image/tiff;q=0.5, image/png;q=0.4", "tif"),
        ("application/geo+json;q=0.1, */*;q=0.9", "png"),
        ("text/html, application/geo+json", "geojson"),
        ("image/png, */*", "png"),
        ("image/png;q=0, */*", "tif"),
        ("image/tiff;q=0, */*", "png"),
        ("image/tiff;q=0, image/png;q=0, */*", "geojson"),
        ("image/*;q=0, */*", "geojson"),
        ("image/png;q=0.1, */*;q=0.5", "tif"),
    ],
)
def test_the_form_is_that_which_is_accepted(accept: str, form: str, images: dict[str, Path], service: Serving) -> None:
    answer = service.post("/predict", images["one-tile.png"].read_bytes(), Accept=accept)
    assert answer.headers["content-type"] == FORMS[form]


def test_a_header_that_stands_there_twice_is_one_list(images: dict[str, Path], service: Serving) -> None:
    body = images["one-tile.png"].read_bytes()
    twice = [("Accept", "text/html"), ("Accept", "image/tiff")]
    assert service.client.post("/predict", content=body, headers=twice).headers["content-type"] == FORMS["tif"]
    page = service.client.get("/", headers=[("Accept", "application/xml"), ("Accept", "text/html")])
    assert page.headers["content-type"].startswith("text/html")
    prefer = [("Prefer", "wait=5"), ("Prefer", "respond-async")]
    answer = service.client.post("/processes/segment/execution", content=body, headers=prefer)
    assert answer.status_code == 201
    service.client.delete(f"/jobs/{answer.json()['jobID']}")
    packed = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    assert service.client.post("/predict", content=body, headers=packed).status_code == 415


def test_polygons_hold_the_classes(images: dict[str, Path], service: Serving) -> None:
    found = json.loads(service.post("/predict?f=geojson", images["strips.tif"].read_bytes()).content)
    assert found["type"] == "FeatureCollection"
    area = sum(feature["properties"]["area_m2"] for feature in found["features"])
    assert area == pytest.approx(120 * 150 * 0.25, rel=2e-3)


def test_six_bands(serving: Callable[..., Serving], six_bands_model: Path, tmp_path: Path) -> None:
    """Bands by their names, wherever they stand; a raster that lacks one is refused; so are its values in bytes."""
    service = serving(model=six_bands_model)
    names = [band.name for band in SIX.bands]
    planes = pixels_of(SIX, 140, 150)
    turned = write_bands(tmp_path / "turned.tif", planes[::-1], tuple(names[::-1]))
    answer = service.post("/predict", turned.read_bytes(), "image/tiff")
    assert answer.status_code == 200, answer.text
    assert answer.content == predicted(turned, six_bands_model, tmp_path / "out.tif")
    assert "swir16" in service.client.get("/processes/segment").text
    short = write_bands(tmp_path / "short.tif", planes[:4], tuple(names[:4]))
    wrong = write_tif(tmp_path / "bytes.tif", waves(64, 64))
    for path, word in ((short, "swir16"), (wrong, "bands")):
        answer = service.post("/predict", path.read_bytes(), "image/tiff")
        assert (answer.status_code, word in answer.json()["detail"]) == (422, True), answer.text
    assert service.end() == 0


def test_notes_are_headers(service: Serving, images: dict[str, Path]) -> None:
    answer = service.post("/predict", images["turned.jpg"].read_bytes())
    assert "orientation" in answer.headers["SkyStill-Note"]
    assert "scratch" not in answer.headers["SkyStill-Note"]
