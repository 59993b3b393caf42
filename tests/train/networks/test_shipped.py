"""Weights that are part of the package: NAME?weights=dubai."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from skystill.classes import DUBAI
from skystill.data import Pair, Split
from skystill.data.prepare import PreparedData
from skystill.errors import CheckpointError, SettingsError
from skystill.raster.input_spec import RGB, InputSpec, spec_from
from skystill.settings import TrainSettings
from skystill.train.beginning import build_first
from skystill.train.networks import shipped
from skystill.train.networks.library import shown_name
from skystill.train.networks.shipped import WEIGHTS, find_weights, shipped_file
from skystill.train.networks.start import network_name, recorded_input, start_network
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, read_record, write_network
from tests.banded_rasters import spec_of

SHIPPED = [f"{network}?weights={one}" for network, names in WEIGHTS.items() for one in names]
FIRST = "levels.0.0.0.0.weight"


@pytest.mark.parametrize("spec", SHIPPED)
def test_a_training_begins_with_every_weight_but_the_head(spec: str) -> None:
    stored = load_file(shipped_file(*spec.split("?weights=")))
    torch.manual_seed(3)
    network = start_network(spec, 5)
    found = network.state_dict()
    assert network.training and found.keys() == stored.keys()
    assert all(
        torch.equal(found[name], value.to(found[name].dtype)) for name, value in stored.items() if "head." not in name
    )
    assert found["head.weight"].shape == (20, 16, 1, 1) and found["head.weight"].std() > 0
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("spec", SHIPPED)
def test_it_is_named_after_its_network_and_is_fed_what_the_data_offers(spec: str) -> None:
    name = spec.split("?")[0]
    assert network_name(spec) == shown_name(spec) == name
    assert recorded_input(spec) is None
    assert find_weights(name) is None


@pytest.mark.parametrize("spec", SHIPPED)
def test_the_card_lies_beside_it(spec: str) -> None:
    path = shipped_file(*spec.split("?weights="))
    assert path.stat().st_size < 500_000
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert spec in card and "CC0" in card and "Apache-2.0" in card and "## Where they must not be used" in card
    with pytest.raises(CheckpointError, match="knows no classes yet"):
        read_record(path)
    settings = recorded(spec)["settings"]
    assert list(settings) == ["images"] and len(settings["images"]) == 48  # and no paths of the machine that made it
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for one in settings["images"])


@pytest.mark.parametrize("spec", SHIPPED)
@pytest.mark.parametrize(
    ("fed", "scaled"),
    [
        (spec_of("uint16", 4, ("red", "green", "blue", "nir")), True),
        (spec_of("float32", 2, ("nir", "swir")), True),
        (spec_of("int16", 1, ("pan",)), True),
        (spec_of("uint8", 3, ("nir", "red", "green")), False),
    ],
)
def test_other_bands_that_all_see_the_same_answer_as_colours_do(spec: str, fed: InputSpec, scaled: bool) -> None:
    """An image whose normalised bands are equal excites the first layer as one whose three colours are equal."""
    own = start_network(spec, 2).state_dict()[FIRST].double()
    other = start_network(spec, 2, fed).state_dict()[FIRST].double()
    squares = own.shape[1] // 3
    assert other.shape == (own.shape[0], squares * len(fed), 3, 3)
    bands = spec_from(recorded(spec)["input_spec"])
    factor = sum(band.std for band in bands.bands) / 3 / bands.unit if scaled else 1.0
    colors = own.unflatten(1, (3, squares))
    shares = {"red": colors[:, 0], "green": colors[:, 1], "blue": colors[:, 2]}
    kept = [shares.get(band.name, colors.mean(1)) for band in fed.bands]
    expected = torch.cat(kept, dim=1) * factor * 3 / len(fed)
    torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-7)


def recorded(spec: str) -> dict[str, Any]:
    """What the file says about itself, read with the library alone."""
    with safe_open(shipped_file(*spec.split("?weights=")), framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["skystill"])
    return found


def test_test_images_that_they_were_trained_on_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for place, image in enumerate(images):
        image.write_bytes(bytes([place]) * 9)
    digest = hashlib.sha256(images[1].read_bytes()).hexdigest()[:16]
    about = NetworkRecord("swift-small", DUBAI, {"images": [digest]}, pretrained="lite0")
    write_network(tmp_path / "w.safetensors", build_network("swift-small", len(DUBAI)), about)
    monkeypatch.setattr(shipped, "shipped_file", lambda *_: tmp_path / "w.safetensors")
    (tmp_path / "copies").mkdir()
    copy = Path(shutil.copy(images[1], tmp_path / "copies/other name.png"))
    said = {}
    for name, tested in {"one": images, "a copy": [copy], "others": images[::2]}.items():
        split = Split("", (), (), tuple(Pair(image.name, image, image) for image in tested))
        data = cast(PreparedData, SimpleNamespace(classes=DUBAI, spec=RGB, split=split))
        asked = TrainSettings(data=tmp_path, out=tmp_path, network=SHIPPED[0])
        said[name] = build_first(SHIPPED[0], asked, data).notes
    assert "was trained on 1 of the 3 test images: scores there are too good" in said["one"][0]  # type: ignore[index]
    assert "on 1 of the 1 test images" in said["a copy"][0] and not said["others"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("swift-small?weights=tokyo", r"has no such weights. It has swift-small\?weights=dubai, without other sizes"),
        ("swift-small?weights=", "has no such weights"),
        ("swift-small?weights=imagenet", "has no such weights"),
        ("kite?weights=dubai", r"network kite\?weights=dubai: SkyStill has no such weights"),
        ("swift-small?weights=dubai&blocks=(1,1,1,1)", "without other sizes"),
        ("swift-small?weights=dubai?weights=dubai", "without other sizes"),
        ("?weights=dubai", "has no such weights"),
        ("swift-small?weights=../dubai", "has no such weights"),
        ("swift-small?weights=runs/a.safetensors", "name the file alone; it knows its network"),
        ("swift-small?weights=" + "a" * 5000, "has no such weights"),
    ],
)
def test_weights_that_there_are_not(spec: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        start_network(spec, 3)
    assert len(str(raised.value)) < 400
    with pytest.raises(SettingsError, match=words):
        network_name(spec)
