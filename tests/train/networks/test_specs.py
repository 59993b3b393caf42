"""Networks that are fed any bands: the contract, normalisation and padding, and weights files."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from skystill.classes import DUBAI
from skystill.digests import KEY
from skystill.errors import CheckpointError, SettingsError
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.train.compress.int8_aware import int8_aware
from skystill.train.compress.prune import cut, find_groups
from skystill.train.networks.blocks import Normalize
from skystill.train.networks.contract import NetworkContractError, check_network
from skystill.train.networks.examples import input_spec_of, noise_images
from skystill.train.networks.start import recorded_input, start_network
from skystill.train.networks.table import FAMILY, NETWORKS, build_network
from skystill.train.networks.weights import NetworkRecord, read_network, read_record, write_network
from tests.banded_rasters import spec_of

SPECS = {
    "grey floats": spec_of("float32", 1), "three floats": spec_of("float32", 3), "six bytes": spec_of("uint8", 6),
    "64 of 16 bits": spec_of("int16", 64), "colours of 16 bits": spec_of("uint16", 3, ("red", "green", "blue")),
    "three other bytes": replace(RGB, bands=tuple(Band(name, 1) for name in ("nir", "red", "green"))),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECS)
@pytest.mark.parametrize("name", ["two-level", "unet-bn", "kite-tiny", "swift-small", "lite-small"])
def test_every_kind_of_network_keeps_the_contract(name: str, case: str) -> None:
    spec = SPECS[case]
    network = build_network(name, 5, spec)
    assert input_spec_of(network) is spec
    check_network(network, name, margin=None)
    with torch.no_grad():
        assert network.eval()(noise_images(spec, 2, 37, 50)).shape == (2, 5, 37, 50)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_whole_table_keeps_the_contract_on_four_bands(name: str) -> None:
    check_network(build_network(name, 3, spec_of("uint16", 4)), name)


@pytest.mark.parametrize("case", SPECS)
@pytest.mark.parametrize(("multiple", "stride"), [(1, 1), (8, 1), (8, 2), (16, 4)])
def test_bands_are_normalised_one_by_one_and_padded_with_zero(multiple: int, stride: int, case: str) -> None:
    spec = SPECS[case]
    images = noise_images(spec, 2, 13, 22)
    found = Normalize(spec)(images, multiple, stride).double().numpy()
    mean, std = (np.array([getattr(band, key) for band in spec.bands])[:, None, None] for key in ("mean", "std"))
    if spec.is_three_bytes:
        mean, std = np.full_like(mean, 128), np.full_like(std, 64)
    normal = (images.double().numpy() - mean) / std
    height, width = (-(-side // multiple) * multiple for side in (13, 22))
    padded = np.zeros((2, len(spec), height, width))
    padded[:, :, :13, :22] = normal
    moved = padded.reshape(2, len(spec), height // stride, stride, width // stride, stride).transpose(0, 1, 3, 5, 2, 4)
    assert np.allclose(found, moved.reshape(found.shape), atol=1e-5)
    assert np.array_equal(found, Normalize(spec)(images.float(), multiple, stride).double().numpy())


@pytest.mark.parametrize("case", SPECS)
def test_the_fill_is_normalised_to_nearly_nothing(case: str) -> None:
    """Floats exactly; integers to half a step of a value."""
    spec = SPECS[case]
    fill = torch.from_numpy(np.broadcast_to(spec.fill[:, None, None], (len(spec), 4, 4)).copy())[None]
    found = Normalize(spec)(fill).abs().amax(dim=(0, 2, 3))
    step = [0.0 if spec.dtype == "float32" or spec.is_three_bytes else 0.5 / band.std for band in spec.bands]
    assert (found <= torch.tensor(step) + 1e-6).all()


def test_pixels_are_normalised_in_32_bits_under_half_precision() -> None:
    spec = InputSpec((Band("", 1, 10_000.0, 1.0, 9_990.0, 10_010.0),), "uint16")
    images = torch.tensor([[[[10_001, 10_003]]]], dtype=torch.uint16)
    with torch.autocast("cpu", torch.bfloat16):
        assert Normalize(spec)(images).flatten().tolist() == [1.0, 3.0]


class Careless(nn.Module):
    """Breaks the clause on normalisation."""

    multiple, feature_layer = 1, "head"

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.normalize, self.head = Normalize(spec), nn.Conv2d(len(spec), 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.normalize(images.float() * 2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", SPECS)
def test_values_that_change_before_the_normalisation_are_noticed(case: str) -> None:
    with pytest.raises(NetworkContractError, match="it must be the first arithmetic"):
        check_network(Careless(SPECS[case]), "careless", margin=None)


@pytest.mark.parametrize("case", SPECS)
def test_weights_files_hold_the_spec(case: str, tmp_path: Path) -> None:
    spec = replace(SPECS[case], nodata=-9999.0, resolution_m=0.25, resolution_range_m=(0.2, 0.3))
    network = build_network("kite-tiny", 6, spec).eval()
    path = tmp_path / "model.safetensors"
    write_network(path, network, NetworkRecord("kite-tiny", DUBAI, input_spec=spec))
    read, record = read_network(path)
    assert record.input_spec == input_spec_of(read) == recorded_input(str(path)) == spec
    images = noise_images(spec, 1, 40, 40)
    with torch.no_grad():
        assert torch.equal(network(images), read(images))
    names = [name for name in read.state_dict() if "normalize" in name]
    assert names == []  # the statistics are those of the spec, once
    started = start_network(str(path), 6, spec)
    assert started.training and input_spec_of(started) == spec


def rewritten(path: Path, change: object) -> None:
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        content = json.loads(file.metadata()["skystill"])
    assert callable(change)
    content.pop(KEY)  # of what was written; files of earlier versions have no digest
    change(content)
    save_file(state, path, metadata={"skystill": json.dumps(content)})


def test_weights_of_earlier_versions_take_colours(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_network(path, build_network("two-level", 6), NetworkRecord("two-level", DUBAI))
    rewritten(path, lambda content: content.pop("input_spec"))
    assert read_record(path).input_spec == RGB
    assert input_spec_of(start_network(str(path), 6, RGB)) == RGB


@pytest.mark.parametrize(
    "broken", [{}, [], "RGB", {"bands": [], "dtype": "uint8"}, {"bands": [{"name": "red"}], "dtype": "uint8"}], ids=str
)
def test_a_damaged_spec_is_refused(broken: object, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_network(path, build_network("two-level", 6), NetworkRecord("two-level", DUBAI))
    rewritten(path, lambda content: content.update(input_spec=broken))
    with pytest.raises(CheckpointError, match="cannot be read as SkyStill weights"):
        read_network(path)


@pytest.mark.parametrize("other", [RGB, spec_of("uint16", 3), spec_of("int16", 4), spec_of("float32", 4)], ids=str)
def test_weights_of_other_bands_are_refused(other: InputSpec, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    spec = spec_of("uint16", 4, ("red", "green", "blue", "nir"))
    write_network(path, build_network("two-level", 6, spec), NetworkRecord("two-level", DUBAI, input_spec=spec))
    with pytest.raises(SettingsError, match="is fed red, green, blue, nir as uint16; of these images it would be"):
        start_network(str(path), 6, other)


@pytest.mark.parametrize("name", ["kite-tiny", "swift-small", "two-level"])
@pytest.mark.parametrize("case", ["three floats", "six bytes", "colours of 16 bits"])
def test_pruning_keeps_the_spec(case: str, name: str, tmp_path: Path) -> None:
    spec = SPECS[case]
    torch.manual_seed(0)
    network = build_network(name, 6, spec)
    images = noise_images(spec, 2, 64, 64)
    whole = copy.deepcopy(network).eval()
    for group in find_groups(network, lambda one: one(images).square().mean().backward()):
        assert group.channels >= 8
        cut(network, group.root, list(range(4)))
        break
    assert input_spec_of(network) == spec
    check_network(network, name, margin=None)
    with torch.no_grad():
        assert not torch.allclose(network.eval()(images), whole(images))
    path = tmp_path / "pruned.safetensors"
    write_network(path, network, NetworkRecord(f"pruned {name}", DUBAI, input_spec=spec))
    with torch.no_grad():
        assert torch.equal(read_network(path)[0](images), network(images))


@pytest.mark.parametrize("case", ["grey floats", "six bytes", "colours of 16 bits"])
def test_int8_aware_training_keeps_the_spec(case: str) -> None:
    spec = SPECS[case]
    network = build_network("kite-tiny", 4, spec)
    images = noise_images(spec, 2, 64, 64)
    network(images)
    before = network.eval()(images)
    with int8_aware(network):
        network.train()(images).square().mean().backward()
        assert input_spec_of(network) == spec
        rounded = network.eval()(images)
    assert 0 < (rounded - before).abs().max() <= 0.5 * before.abs().max()
    check_network(network, "kite-tiny", margin=None)


def test_noise_has_the_range_of_the_training_images() -> None:
    spec = InputSpec((Band("", 1, 0.0, 1.0, -5.0, 5.0), Band("", 2, 700.0, 50.0, 600.0, 800.0)), "int16")
    noise = noise_images(spec, 3, 40, 50)
    assert noise.shape == (3, 2, 40, 50) and noise.dtype == torch.int16
    for band, (low, high) in enumerate(((-5, 5), (600, 800))):
        assert low <= noise[:, band].min() < low + 3 and high - 3 < noise[:, band].max() <= high
    assert torch.equal(noise, noise_images(spec, 3, 40, 50)) and noise_images(RGB, 1, 8, 8).dtype == torch.uint8


def test_the_family_is_built_for_any_bands() -> None:
    for name in FAMILY:
        one, four = (sum(p.numel() for p in build_network(name, 3, spec_of("uint16", n)).parameters()) for n in (1, 4))
        assert four > one
