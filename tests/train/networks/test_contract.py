"""Every network of the table keeps the contract; each way to break it gets an error that names its clause."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill import tiling
from skystill.classes import DUBAI
from skystill.errors import SettingsError
from skystill.model.file import ModelInfo
from skystill.raster.input_spec import RGB
from skystill.train.compress import export
from skystill.train.compress.export import describe
from skystill.train.compress.int8_aware import int8_aware
from skystill.train.loop.ranks import use_global_batch_norm
from skystill.train.networks.blocks import Normalize
from skystill.train.networks.contract import (
    LARGEST_FIELD_BEYOND,
    MARGIN,
    PHASE,
    Network,
    NetworkContractError,
    check_network,
    check_structure,
    field_beyond,
    margin_of,
)
from skystill.train.networks.start import start_network
from skystill.train.networks.table import NETWORKS, build_network
from skystill.train.networks.weights import NetworkRecord, read_network, write_network


@pytest.mark.parametrize("name", list(NETWORKS))
class TestTable:
    """What every network of the table must do."""

    def test_all_clauses(self, name: str) -> None:
        network = build_network(name, 5)
        assert isinstance(network, Network)
        before = copy.deepcopy(network.state_dict())
        check_network(network, name)
        assert network.training
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    def test_bytes_and_floats_give_the_same_logits_to_the_bit(self, name: str) -> None:
        network = build_network(name, 5).eval()
        images = torch.randint(0, 256, (2, 3, 37, 50), dtype=torch.uint8)
        with torch.no_grad():
            assert torch.equal(network(images), network(images.float()))

    def test_a_tile_in_the_phase_of_the_raster_gives_the_logits_of_the_whole_image(self, name: str) -> None:
        torch.manual_seed(0)
        network = build_network(name, 3).eval()
        own = margin_of(network)
        far = own if name in {"lite1", "lite2"} else 2 * own  # one of this kind is enough: it takes seconds
        image = torch.randint(0, 256, (1, 3, 2 * far + 2 * PHASE, 2 * far + 2 * PHASE), dtype=torch.uint8)
        with torch.no_grad():
            whole = network(image)[..., far : far + PHASE, far + PHASE : far + 2 * PHASE]
            for margin, tolerance in {own: 1e-3, far: 1e-5 if far > own else 1e-3}.items():
                top, left = far - margin, far + PHASE - margin
                tile = image[..., top : top + PHASE + 2 * margin, left : left + PHASE + 2 * margin]
                found = network(tile)[..., margin:-margin, margin:-margin]
                assert (found - whole).abs().max() <= tolerance * whole.abs().max()

    def test_padding_is_cut_off_and_does_not_reach_far(self, name: str) -> None:
        network = build_network(name, 3).eval()
        image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
        with torch.no_grad():
            whole, part = network(image), network(image[..., :250, :])
        assert torch.allclose(whole[..., :64, :], part[..., :64, :], atol=1e-5)

    def test_every_weight_learns(self, name: str) -> None:
        network = build_network(name, 3)
        network(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
        assert [n for n, p in network.named_parameters() if p.grad is None] == []

    def test_int8_aware_fine_tuning_folds_every_batch_norm_and_leaves_the_contract_kept(self, name: str) -> None:
        network = build_network(name, 3)
        with int8_aware(network):
            assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        check_structure(network, name)

    def test_weights_survive_a_file(self, name: str, tmp_path: Path) -> None:
        network = build_network(name, len(DUBAI)).eval()
        write_network(tmp_path / "model.safetensors", network, NetworkRecord(name, DUBAI))
        read, about = read_network(tmp_path / "model.safetensors")
        images = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
        with torch.no_grad():
            assert torch.equal(network(images), read(images))
        assert about.network == name
        assert not read.training


def test_the_numbers_are_those_of_tiling_and_of_model_files() -> None:
    assert tiling.PHASE == PHASE
    assert ModelInfo(DUBAI, "kite", 0, 0).overlap // 2 == MARGIN


def test_which_networks_fit_the_margin_exactly() -> None:
    """Which the docstring of `Network` says: the rest is approximate by default, and exact with an overlap of 256."""
    made = {name: build_network(name, 2) for name in NETWORKS}
    margins = {name: margin_of(network) for name, network in made.items()}
    assert {name: margin for name, margin in margins.items() if margin > MARGIN} == {
        "lite-small": 128, "lite": 128, "lite0": 192, "lite1": 192, "lite2": 192,
    }  # fmt: skip
    beyond = {
        name: [field_beyond(made[name], margin) for margin in (64, 128, 192)]
        for name in NETWORKS
        if margins[name] == MARGIN
    }
    assert {name for name, (default, _, _) in beyond.items() if default == 0} == {"two-level"}
    assert {name for name, (_, wide, _) in beyond.items() if wide > 0} == {"unet-large"}
    assert all(far == 0 for _, _, far in beyond.values())
    assert beyond["kite"][0] == pytest.approx(0.00094, abs=1e-5)
    assert max(default for default, _, _ in beyond.values()) == beyond["unet-large"][0] <= LARGEST_FIELD_BEYOND


def test_a_model_file_asks_for_the_overlap_that_its_network_needs() -> None:
    found = {name: describe(name, build_network(name, len(DUBAI)), DUBAI).overlap for name in ("kite", "lite", "lite0")}
    assert found == {"kite": 128, "lite": 256, "lite0": 384}


def test_relu6_does_not_shorten_the_field() -> None:
    saturating = Small(nn.Sequential(conv6(3, 4), conv6(4, 4), conv6(4, 4)))
    linear = copy.deepcopy(saturating)
    for block in linear.body:
        block[1] = nn.ReLU()
    assert field_beyond(saturating, 1) == field_beyond(linear, 1) > 0
    assert isinstance(saturating.body[0][1], nn.ReLU6) and saturating.body[0][1].max_val == 6


def conv6(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU6(), Louder())


class Louder(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return 20 * features


def test_the_field_of_one_convolution_by_hand() -> None:
    # A mean over 5 x 5 pixels: the outermost pixel of the core reads 2 of 5 rows from outside, and 1 beyond 1 pixel.
    network = Small(nn.Conv2d(3, 4, 5, padding=2))
    assert [field_beyond(network, margin) for margin in (0, 1, 2)] == pytest.approx([0.4, 0.2, 0.0], abs=1e-6)


class Small(nn.Module):
    """A small network that keeps the contract, with places to break it."""

    multiple = 1
    feature_layer = "body"
    levels = property(lambda self: nn.ModuleList([self.body]))

    def __init__(self, body: nn.Module | None = None, head: nn.Module | None = None) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.body = body or nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = head or nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.normalize(images)))


def changed(**attributes: object) -> nn.Module:
    network = Small()
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


def changed_class(**attributes: object) -> nn.Module:
    return type("Changed", (Small,), attributes)()


def with_forward(forward: Callable[[nn.Module, Tensor], object]) -> nn.Module:
    return type("Changed", (Small,), {"forward": forward})()


def conv(bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3, padding=1, bias=bias)


class NoNormalize(Small):
    def __init__(self) -> None:
        super().__init__()
        del self.normalize

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images.float() / 255))


class LinearHead(Small):
    def __init__(self) -> None:
        super().__init__(head=nn.Linear(4, 2))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.normalize(images)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NoHead(Small):
    def __init__(self) -> None:
        super().__init__()
        self.last = self.head
        del self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.body(self.normalize(images)))


class NormOutside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(4)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(self.conv(features))


class Backwards(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        return self[0](self[1](features))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = conv(), nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features) * self.scale


class Quarter(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, 4, ceil_mode=True)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.first = conv()

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(self.conv(self.first(features)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = conv(), conv()
        self.other.weight = self.one.weight

    def forward(self, features: Tensor) -> Tensor:
        return self.one(features) + self.other(features)


class Unused(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv())
        self.spare = nn.Identity()
        self.spare.inside = conv()


class InAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, features: Tensor) -> list[Tensor]:
        return [self.conv(features)]


class FeaturesInAList(Small):
    def __init__(self) -> None:
        super().__init__(InAList())

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.normalize(images))[0])


BROKEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "two Normalize": (lambda: Small(nn.Sequential(Normalize(), conv())), r"normalize: there are 2 Normalize modules"),
    "no Normalize": (NoNormalize, r"normalize: there are 0"),
    "Normalize after arithmetic": (
        lambda: with_forward(lambda self, images: self.head(self.body(self.normalize(255 - images)))),
        r"normalize: the bytes are changed before normalize",
    ),
    "Normalize of floats": (
        lambda: with_forward(lambda self, images: self.head(self.body(self.normalize(images.float())))),
        r"normalize: the bytes are changed before normalize",
    ),
    "Normalize that does not run": (
        lambda: with_forward(lambda self, images: self.head(self.body(images.float() / 255))),
        r"normalize: normalize runs 0 times in a forward pass",
    ),
    "no head": (NoHead, r"head: `head` is missing"),
    "head Linear": (LinearHead, r"head: `head` is Linear"),
    "head of other channels": (
        lambda: with_forward(lambda self, images: self.head(self.body(self.normalize(images)))[:, [0, 1, 0]]),
        r"head: it gives 2 channels for 3 classes",
    ),
    "feature_layer missing": (lambda: changed(feature_layer="encoder.4"), r"feature_layer: .*'encoder\.4'"),
    "no feature_layer": (lambda: changed(feature_layer=None), r"feature_layer: `feature_layer` is None"),
    "feature_layer gives a list": (
        FeaturesInAList,
        r"feature_layer: body gives list; a tensor \(N, C, h, w\)",
    ),
    "feature_layer does not run": (
        lambda: changed(feature_layer="spare", spare=nn.Identity()),
        r"feature_layer: spare gives nothing, because it does not run",
    ),
    "BatchNorm before its convolution": (
        lambda: Small(nn.Sequential(nn.BatchNorm2d(3), conv())),
        r"batch norm: body\.0 does not directly follow",
    ),
    "BatchNorm outside a Sequential": (lambda: Small(NormOutside()), r"batch norm: body\.norm does not directly"),
    "Sequential with its own forward": (
        lambda: Small(Backwards(conv(), nn.BatchNorm2d(3))),
        r"batch norm: body\.1 does not directly follow",
    ),
    "ReLU between": (
        lambda: Small(nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(4))),
        r"batch norm: body\.2 does not directly follow",
    ),
    "convolution with a bias": (
        lambda: Small(nn.Sequential(conv(bias=True), nn.BatchNorm2d(4))),
        r"batch norm: the convolution before body\.1 has a bias",
    ),
    "BatchNorm without weights": (
        lambda: Small(nn.Sequential(conv(), nn.BatchNorm2d(4, affine=False))),
        r"batch norm: body\.1 has no weights",
    ),
    "another norm": (
        lambda: Small(nn.Sequential(conv(), nn.GroupNorm(2, 4))),
        r"layers: body\.1 \(GroupNorm\) holds weight, bias",
    ),
    "parameter of its own": (lambda: Small(Scaled()), r"layers: body \(Scaled\) holds scale"),
    "a layer that runs twice": (lambda: Small(Twice()), r"layers: body\.conv runs 2 times"),
    "a layer that does not run": (lambda: Small(Unused()), r"layers: body\.spare\.inside runs 0 times"),
    "shared weights": (lambda: Small(Tied()), r"layers: body\.one\.weight and body\.other\.weight are the same tensor"),
    "multiple 128": (lambda: changed(multiple=128), r"multiple: `multiple` is 128; a divisor of 64"),
    "multiple 48": (lambda: changed(multiple=48), r"multiple: `multiple` is 48"),
    "no levels": (lambda: changed_class(levels=None), "levels: `levels` is missing"),
    "levels in a list": (lambda: changed_class(levels=[nn.ReLU()]), "levels: `levels` is list; an nn.ModuleList"),
    "margin 96": (lambda: changed(margin=96), r"field: `margin` is 96; a multiple of 64 is expected"),
    "no multiple": (lambda: changed(multiple=None), r"multiple: `multiple` is None"),
    "output of another size": (
        lambda: Small(nn.Sequential(conv(), Quarter())),
        r"output: uint8 images \(2, 3, 37, 50\) give torch\.float32 of shape \(2, 2, 10, 13\)",
    ),
    "output in a dictionary": (
        lambda: with_forward(lambda self, images: {"out": self.head(self.body(self.normalize(images)))}),
        r"output: uint8 images .* give dict",
    ),
    "output of another type": (
        lambda: with_forward(lambda self, images: self.head(self.body(self.normalize(images))).double()),
        r"output: .* give torch\.float64",
    ),
    "output that is not finite": (
        lambda: with_forward(lambda self, images: self.head(self.body(self.normalize(images))).log()),
        r"output: uint8 images \(2, 3, 1, 1\) give values that are not finite",
    ),
    "floats only": (
        lambda: with_forward(lambda self, images: self.head(self.body(images))),
        r"input: uint8 images \(2, 3, 1, 1\) raise RuntimeError",
    ),
    "other logits for floats": (
        lambda: with_forward(
            lambda self, images: self.head(self.body(self.normalize(images))) + float(images.is_floating_point())
        ),
        r"input: uint8 and float images .* give different logits",
    ),
    "large images only": (lambda: Small(nn.Conv2d(3, 4, 3)), r"input: uint8 images \(2, 3, 1, 1\) raise"),
    "random in eval": (
        lambda: with_forward(lambda self, images: F.dropout(self.head(self.body(self.normalize(images))), 0.5)),
        r"eval: two calls with the same images",
    ),
    "depends on the batch": (
        lambda: with_forward(
            lambda self, images: (logits := self.head(self.body(self.normalize(images)))) - logits.mean(dim=0)
        ),
        r"eval: the logits of an image depend on the other images",
    ),
    "a field that is too large": (
        lambda: Small(nn.Conv2d(3, 4, 3, padding=100, dilation=100)),  # two rows of three are 100 pixels away
        r"field: 66\.7% of the field of a pixel lies beyond the margin of 64 pixels; at most 1% may",
    ),
}


def test_the_small_network_keeps_the_contract() -> None:
    check_network(Small(), "small")


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_clause_is_named(case: str) -> None:
    build, message = BROKEN[case]
    torch.manual_seed(0)
    with pytest.raises(NetworkContractError, match="network mine breaks the contract") as error:
        check_network(build(), "mine")
    problems = error.value.problems
    assert re.match(message, problems[0])
    assert len(problems) == (2 if case in {"head Linear", "two Normalize"} else 1), problems


def test_all_broken_clauses_stand_in_one_error() -> None:
    network = changed(multiple=128, feature_layer="deep", body=nn.Sequential(conv(bias=True), nn.BatchNorm2d(4)))
    with pytest.raises(NetworkContractError) as error:
        check_network(network, "mine")
    assert [problem.split(":")[0] for problem in error.value.problems] == ["feature_layer", "multiple", "batch norm"]
    assert isinstance(error.value, SettingsError) and error.value.exit_code == 2


def test_batch_norm_over_ranks_keeps_the_contract() -> None:
    network = build_network("kite-nano", 3)
    use_global_batch_norm(network)
    check_structure(network, "kite-nano")


def test_a_network_that_cannot_be_tiled_is_refused_before_training() -> None:
    with pytest.raises(NetworkContractError, match=r"unet\?depth=8&channels=1 .*(?s:.*)multiple: `multiple` is 128"):
        start_network("unet?depth=8&channels=1", 6)


def test_export_refuses_before_it_writes(tmp_path: Path) -> None:
    network = Small(nn.Sequential(conv(), Quarter()))
    with pytest.raises(NetworkContractError, match="output: uint8 images"):
        export.export_network(network, ModelInfo(DUBAI, "mine", 0, 0), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_does_not_normalise_once_is_refused_in_words() -> None:
    with pytest.raises(NetworkContractError, match=r"network mine .*(?s:.*)normalize: the graph holds 0 chains"):
        export._take_bytes(onnx.ModelProto(), "mine", RGB)
