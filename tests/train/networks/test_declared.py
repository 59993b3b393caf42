"""Networks are bounded by the sizes that their names and files declare, before any weight takes memory."""

import os
import resource
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skystill.classes import DUBAI
from skystill.digests import seal_safetensors
from skystill.errors import CheckpointError, SettingsError
from skystill.train.networks import table
from skystill.train.networks.table import MAX_PARAMETERS, NETWORKS, build_network, count_parameters, declared_shapes
from skystill.train.networks.weights import PRUNED, NetworkRecord, read_network, write_network
from tests.measured import run


def of_unet(channels: int, classes: int = 6) -> int:
    """Parameters of a U-Net of five levels with 3 x 3 convolutions, worked out from its description."""
    sizes = [channels, 2 * channels, 4 * channels, 8 * channels, 16 * channels]
    encoder: int = sum(9 * a * b + b + 9 * b * b + b for a, b in pairwise([3, *sizes]))
    decoder: int = sum(4 * 2 * s * s + s + 9 * 2 * s * s + s + 9 * s * s + s for s in sizes[:-1])
    return encoder + decoder + classes * channels + classes


HUGE = {
    "unet?channels=99999": f"{of_unet(99999):,} parameters",
    "unet?channels=400": rf"{of_unet(400):,} parameters, which take 4\.5 GiB; up to 500,000,000",
    "unet?channels=16&depth=16": "8,154,714,904,518 parameters",
    "unet?depth=1000000000": "depth is 1000000000; up to 16 numbers, each of them up to 16,",
    "unet?channels=10000000000": "channels is 10000000000",
    "unet?channels=1000000&depth=16": "Write sizes as in",
    "unet?stride=100000": "stride is 100000",
    "kite?blocks=(100000000,1,1)": r"blocks is \(100000000,1,1\)",
    "swift?up_blocks=(1,1,99999999)": "up_blocks is",
    f"kite?channels=({'16,' * 17})&blocks=({'0,' * 17})": "up to 16 numbers",
    f"unet?channels={'(' * 50_000}": "not a number or a tuple of numbers",
    f"unet?channels={'9' * 50_000}": "not a number or a tuple of numbers",
    f"unet?channels=32{' ' * 300}": "not a number or a tuple of numbers",
    "x" * 50_000: "no network is called",
}


@pytest.mark.parametrize("spec", HUGE, ids=lambda spec: spec[:30])
def test_absurd_sizes_are_refused_at_once(spec: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(SettingsError, match=HUGE[spec]) as raised:
        build_network(spec, 6)
    assert time.perf_counter() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert len(str(raised.value)) < 2_000


def test_the_cap_is_that_of_the_learnt_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PARAMETERS == 500_000_000
    monkeypatch.setattr(table, "MAX_PARAMETERS", 25_766)  # of two-level, with six classes
    build_network("two-level", 6)
    monkeypatch.setattr(table, "MAX_PARAMETERS", 25_765)
    with pytest.raises(SettingsError, match="25,766 parameters"):
        build_network("two-level", 6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_declared_shapes_are_those_of_the_network_and_change_no_weight(name: str) -> None:
    torch.manual_seed(3)
    network = NETWORKS[name](6)
    state, drawn = network.state_dict(), torch.get_rng_state()
    torch.manual_seed(3)
    again = build_network(name, 6)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert declared_shapes(name, 6) == {key: tuple(value.shape) for key, value in state.items()}


def write(path: Path, network: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A weights file whose metadata name a network, and which holds other weights."""
    tensors = {"head.bias": torch.zeros(6)} if tensors is None else tensors
    save_file(tensors, path, metadata={"skystill": NetworkRecord(network, DUBAI).to_json()})
    seal_safetensors(path)
    return path


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("unet?channels=200", "not those of unet"),  # 303 million: 1.2 GB that were made before they were compared
        ("unet?channels=100000", "parameters, which take"),
        ("unet?depth=1000000000", "depth is"),
        (PRUNED + "unet?channels=200", "not those of pruned unet"),
        ("kite?blocks=(256,256,256)", "not those of kite"),
    ],
)
def test_a_file_that_names_a_huge_network_is_refused_before_it_is_built(
    network: str, words: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "w.safetensors", network)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=words) as raised:
        read_network(path)
    assert str(path) in str(raised.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_pruned_network_cannot_claim_that_nearly_nothing_is_left(tmp_path: Path) -> None:
    """The names fit, and every shape is smaller: one channel is left in each layer."""
    shapes = declared_shapes("unet?channels=100", 6)
    tensors = {name: torch.zeros([1] * len(shape)) for name, shape in shapes.items()}
    path = write(tmp_path / "w.safetensors", PRUNED + "unet?channels=100", tensors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="are said to be left of 75,"):
        read_network(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("change", ["rank", "larger", "smaller", "missing", "added"])
def test_other_shapes_are_refused_by_name(change: str, tmp_path: Path) -> None:
    network = build_network("two-level", 6)
    state = dict(network.state_dict())
    name = "encoder.0.0.weight" if "encoder.0.0.weight" in state else next(n for n in state if n.startswith("encoder"))
    if change == "rank":
        state[name] = state[name][None]
    elif change == "larger":
        state[name] = torch.cat([state[name], state[name]])
    elif change == "smaller":
        state[name] = state[name][:1]
    elif change == "missing":
        del state[name]
    else:
        name = "extra"
        state[name] = torch.zeros(1)
    path = write(tmp_path / "w.safetensors", "two-level", {key: value.contiguous() for key, value in state.items()})
    with pytest.raises(CheckpointError, match=name):
        read_network(path)


def test_true_files_are_read_as_before(tmp_path: Path) -> None:
    network = build_network("kite-nano", 6)
    write_network(tmp_path / "w.safetensors", network, NetworkRecord("kite-nano", DUBAI))
    read, record = read_network(tmp_path / "w.safetensors")
    assert record.network == "kite-nano" and count_parameters(read) == 28_128
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in read.state_dict().items())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_file_of_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="is a named pipe"):
        read_network(tmp_path / "w.safetensors")


def test_train_says_how_many_parameters_there_would_be(pairs_folder: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    code, text, peak = run("train", "--data", pairs_folder, "--out", run_folder, "--network", "unet?channels=99999")
    assert code == 2, text
    assert f"{of_unet(99999, 2):,} parameters" in text, text
    assert "Traceback" not in text
    assert peak < 2**30
