from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skystill.classes import DUBAI
from skystill.errors import CheckpointError, SettingsError
from skystill.train.compress.export import multiply_adds_per_megapixel
from skystill.train.networks.blocks import Normalize
from skystill.train.networks.table import NETWORKS, build_network, count_parameters
from skystill.train.networks.weights import NetworkRecord, read_network, write_network

PARAMETERS = {
    "unet": 1_941_190,
    "unet-bn": 1_942_662,
    "two-level": 25_766,
    "unet-large": 7_732_256,
    "kite-nano": 28_128,
    "kite-tiny": 53_952,
    "kite-small": 103_040,
    "kite": 393_376,
    "swift-small": 229_720,
    "swift": 445_848,
    "lite-small": 738_296,
    "lite": 751_928,
    "lite0": 3_839_288,
    "lite1": 4_603_960,
    "lite2": 5_289_080,
}
"""For the six classes of Dubai."""


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_says_the_true_sizes(name: str) -> None:
    assert count_parameters(build_network(name, 6)) == PARAMETERS[name]


def test_bytes_are_scaled_to_the_same_values_in_half_precision() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 3, 16, 16)
    expected = Normalize()(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = Normalize()(images)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.float(), expected)


def test_other_sizes_stand_behind_the_name() -> None:
    network = build_network("unet?channels=8&depth=3&norm=True", 4)
    assert network(torch.zeros(1, 3, 9, 9)).shape == (1, 4, 9, 9)
    assert count_parameters(network) < count_parameters(build_network("unet", 4))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet", "no network is called 'resnet'; there are unet, "),
        ("unet?width=3", r"unexpected keyword argument 'width'.*Write sizes as in unet\?channels=32&depth=4"),
        ("unet?channels=many", "channels is 'many', which is not a number"),
        ("unet?channels=(1,", r"channels is '\(1,', which is not a number"),
        ("unet?channels=-1", "Write sizes as in"),
    ],
)
def test_unknown_networks_are_refused_in_words(spec: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build_network(spec, 6)


def test_multiply_adds_by_hand() -> None:
    # unet?channels=1&depth=1: 3x3 convolutions 3 to 1 and 1 to 1, and a 1x1 convolution 1 to 2, at every pixel
    assert multiply_adds_per_megapixel(build_network("unet?channels=1&depth=1", 2)) == (27 + 9 + 2) * 10**6


def test_damaged_weights_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="missing"):
        read_network(path)
    write_network(path, build_network("two-level", 6), NetworkRecord("two-level", DUBAI))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        read_network(path)
    save_file({"a": torch.zeros(1)}, path)  # of another program
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        read_network(path)
