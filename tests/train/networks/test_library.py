"""Networks of other libraries where these are not installed: names, the levels of encoders made here, bands.

tests/foreign/test_encoders.py has the libraries.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from skystill import api
from skystill.classes import DUBAI
from skystill.cli import app
from skystill.errors import SettingsError
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.train.libraries.imports import LibraryMissing, import_library
from skystill.train.networks import table
from skystill.train.networks.first_layer import in_bytes, spread_kernel
from skystill.train.networks.library import is_library, is_weights_file, parse_library, shown_name
from skystill.train.networks.library_levels import watch_encoder
from skystill.train.networks.light_unet import LightUNet
from skystill.train.networks.start import network_name
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, read_network, write_network

NOT_HERE = pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")


@pytest.mark.parametrize(
    ("spec", "library", "file", "name"),
    [
        ("timm:resnet10t?weights=a/b.safetensors", True, False, "timm:resnet10t"),
        ("smp:UNET/resnet18", True, False, "smp:UNET/resnet18"),
        ("a/b.safetensors", False, True, "a/b.safetensors"),
        ("kite?channels=(8,8)", False, False, "kite?channels=(8,8)"),
        ("TIMM:resnet10t", False, False, "TIMM:resnet10t"),
    ],
)
def test_what_a_name_is(spec: str, library: bool, file: bool, name: str) -> None:
    assert (is_library(spec), is_weights_file(spec), shown_name(spec)) == (library, file, name)
    if library:
        assert network_name(spec) == name
        assert parse_library(spec).weights == spec.partition("weights=")[2]


@NOT_HERE
@pytest.mark.parametrize(
    ("spec", "package"),
    [
        ("timm:resnet10t", "timm"),
        ("timm:resnet10t?weights=imagenet", "timm"),
        ("smp:Unet/resnet18", "segmentation-models-pytorch"),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_is_read(tmp_path: Path, spec: str, package: str) -> None:
    with pytest.raises(
        LibraryMissing, match=rf"needs {package}, which is not installed: pip install {package}"
    ) as error:
        api.train(data=tmp_path / "nowhere", network=spec, out=tmp_path / "run")
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_package_that_cannot_be_imported_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "lacks_another.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    for module, says in (
        ("broken_library", "RuntimeError: operator torch"),
        ("lacks_another", "No module named 'no_s"),
    ):
        with pytest.raises(SettingsError, match=rf"needs them, which is installed and cannot be imported \(.*{says}"):
            import_library(module, "them")


@NOT_HERE
def test_a_weights_file_of_a_missing_library_says_what_to_install(tmp_path: Path) -> None:
    write_network(tmp_path / "w.safetensors", build_network("kite-nano", 6), NetworkRecord("timm:resnet10t", DUBAI))
    with pytest.raises(LibraryMissing, match="network timm:resnet10t needs timm, which is not installed"):
        read_network(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("timm:", "names no network of timm; expected is timm:NAME"),
        (f"timm:{'a' * 300}", "names no network of timm"),
        ("smp:Unet", "names no network of smp; expected is smp:ARCHITECTURE/ENCODER"),
        ("smp:Unet/", "names no network of smp"),
        ("timm:a?depth=3&x=1", "there is no option depth, x; there is weights"),
        ("timm:a?weights=", "weights= is empty"),
        ("timm:a?weights", "bad query field"),
        ("timm:a?weights=a&weights=b", "stands there 2 times"),
    ],
)
def test_names_that_are_refused(spec: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse_library(spec)


def test_the_list_of_networks_names_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "NETWORKS", {"kite-nano": table.NETWORKS["kite-nano"]})
    said = CliRunner().invoke(app, ["networks"]).output
    assert "swift-small?weights=dubai  begins with what it has learnt" in said
    assert "timm:NAME?weights=FILE  any encoder of timm" in said
    assert "smp:ARCHITECTURE/ENCODER?weights=FILE  any network of" in said


# ---- levels of encoders that are made here


class Stage(nn.Module):
    """A residual block of stride 2 that adds in place and ends with an activation in place, as in ResNet."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, 2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images))
        features += self.shortcut(images)
        activated: Tensor = self.act(features)
        return activated


class Encoder(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one, self.two = Stage(3, 8), Stage(8, 8)
        self.same = nn.Identity()
        self.shared = nn.Conv2d(8, 8, 1)
        if kind == "own weight":
            self.place = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.one(images)
        second = self.two(self.same(first))
        if self.kind == "shared":
            first, second = self.shared(first), self.shared(second)
        if self.kind == "backwards":
            return [second, first]
        if self.kind == "functional":
            return [F.relu(first), F.relu(second)]
        if self.kind == "with images":
            return [images, images.new_zeros(1, 0, 4, 4), first, second]
        return [first, second]


@pytest.mark.parametrize("kind", ["plain", "with images"])
def test_a_level_holds_all_that_its_features_depend_on(kind: str) -> None:
    found = watch_encoder(Encoder(kind), torch.zeros(1, 3, 16, 16))
    first, second = (set(level) for level in found.levels)
    assert first == {f"one.{part}" for part in ("conv", "norm", "shortcut", "act")}
    assert second >= {f"two.{part}" for part in ("conv", "norm", "shortcut", "act")} | {"same"}
    assert not first & second
    assert found.readers == ("one.conv", "one.shortcut")
    assert [tuple(one.shape[2:]) for one in found.features] == [(8, 8), (4, 4)]


@pytest.mark.parametrize("kind", ["shared", "backwards", "functional", "own weight"])
def test_levels_that_cannot_be_told_apart_are_one(kind: str) -> None:
    assert watch_encoder(Encoder(kind), torch.zeros(1, 3, 16, 16)).levels == (("",),)


# ---- decoder and first layer


@pytest.mark.parametrize(("sizes", "given"), [([4, 6, 8], 3), ([0, 6, 8], 2)])
def test_the_decoder_takes_encoders_that_begin_at_a_half_or_at_a_quarter(sizes: list[int], given: int) -> None:
    network = LightUNet()
    network.add_decoder(5, RGB, sizes, (7, 9))
    pyramid = [torch.zeros(2, size, 32 >> place, 48 >> place) for place, size in enumerate(sizes)][-given:]
    assert network.decode(pyramid, torch.zeros(2, 12, 32, 48)).shape == (2, 5, 64, 96)
    assert [block[0].in_channels for block in network.decoder] == [8 + 6, 7 + sizes[0] + 9]


def test_a_kernel_is_spread_over_bands() -> None:
    kernel = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(2, 3, 2, 2)
    spec = InputSpec(tuple(Band(name, 1, 5.0, 2.0) for name in ("blue", "nir", "red", "green")), "float32")
    found = spread_kernel(kernel, spec)
    for band, expected in enumerate((kernel[:, 2], kernel.mean(dim=1), kernel[:, 0], kernel[:, 1])):
        assert torch.equal(found[:, band], expected * 0.75)
    assert in_bytes(spec)[0] == (103.53, 57.375)
    assert in_bytes(spec)[1] == pytest.approx((114.495, 57.63))
    assert in_bytes(RGB) == [(128.0, 64.0)] * 3
