"""Encoders of timm and segmentation_models_pytorch: their weights, bands and levels. Every file is made here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from skystill.classes import ClassMap
from skystill.errors import CheckpointError, SettingsError, UserError
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.train.networks.library_networks import OfLibrary
from skystill.train.networks.start import match_head, start_network
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), np.uint8))
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
_COLORS = ((1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0))
VALUES = InputSpec(
    tuple(Band(name, place, 900.0, 300.0, 0, 3000) for place, name in enumerate(("nir", "red", "green", "blue"), 1)),
    "uint16",
)


def drawn(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network whose weights and statistics are all drawn, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1, generator=generator)
        elif value.ndim == 1:
            value.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def save(network: nn.Module, path: Path) -> Path:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def begin(spec: str, weights: Path | str, input_spec: InputSpec = RGB) -> OfLibrary:
    network = start_network(f"{spec}?weights={weights}", 3, input_spec)
    assert isinstance(network, OfLibrary)
    return network.eval()


def features_of(network: OfLibrary, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(network.encoder(network.rescale(network.normalize(images))))


# ---- published weights compute what they compute in their library


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet10t", "whole.pt"),
        ("mobilenetv3_small_050", "whole.safetensors"),
        ("test_efficientnet.r160_in1k", "whole.safetensors"),
        ("convnext_atto", "whole.safetensors"),
        ("convnext_atto", "features.pt"),
    ],
)
def test_an_encoder_of_timm_gives_the_features_of_its_published_weights(tmp_path: Path, name: str, file: str) -> None:
    whole = drawn(timm.create_model(name))
    features = timm.create_model(name, features_only=True, pretrained=False).eval()
    by_name = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    features.load_state_dict({key: by_name[key.replace(".", "_")] for key in features.state_dict()})
    network = begin(f"timm:{name}", save(features if file.startswith("features") else whole, tmp_path / file))
    with torch.no_grad():
        mean, std = (torch.tensor(whole.pretrained_cfg[part])[:, None, None] for part in ("mean", "std"))
        expected = features((IMAGES / 255 - mean) / std)
    for own, other in zip(features_of(network, IMAGES), expected, strict=True):
        assert torch.allclose(own, other, atol=1e-4 * float(other.abs().max()))
    assert network(IMAGES[:, :, :37, :50]).shape == (2, 3, 37, 50)
    assert "begins with the weights of" in network.notes[0]


@pytest.mark.parametrize("whole", [True, False])
def test_an_encoder_of_smp(tmp_path: Path, whole: bool) -> None:
    published = drawn(smp.Unet("resnet18", encoder_weights=None, classes=7))
    encoder = published.encoder
    if not whole:
        encoder.fc = nn.Linear(512, 10)  # the classifier that published files hold
    network = begin("smp:UNET/resnet18", save(published if whole else encoder, tmp_path / "w.safetensors"))
    with torch.no_grad():
        expected = encoder((IMAGES / 255 - MEAN) / STD)
    for own, other in zip(features_of(network, IMAGES)[1:], expected[1:], strict=True):
        assert torch.allclose(own, other, atol=1e-3 * float(other.abs().max()))
    left_out = "decoder." if whole else "fc.bias; fc.weight."
    assert f"Left out of the file: {left_out}" in network.notes[0]


def test_an_encoder_of_timm_inside_smp_takes_the_file_of_timm(tmp_path: Path) -> None:
    whole = drawn(timm.create_model("test_convnext"))
    network = begin("smp:Unet/tu-test_convnext", save(whole, tmp_path / "w.pt"))
    state = network.encoder.state_dict()
    assert torch.equal(state["model.stages_2.blocks.0.mlp.fc1.weight"], whole.stages[2].blocks[0].mlp.fc1.weight)
    assert network.rescale.shift.flatten().tolist() == pytest.approx([(128 / 255 - 0.5) / 0.5] * 3)  # as timm says
    assert [len(level) > 1 for level in network.levels] == [True] * 4


def test_other_bands_and_another_order(tmp_path: Path) -> None:
    whole = drawn(timm.create_model("test_resnet"))
    path = save(whole, tmp_path / "w.safetensors")
    kernel = whole.conv1[0].weight
    network = begin("timm:test_resnet", path, VALUES)
    assert network.readers == ("conv1.0",)
    found = network.encoder.conv1[0].weight
    assert torch.allclose(found[:, 0], kernel.mean(dim=1) * 0.75, atol=1e-7)
    assert torch.allclose(found[:, 1:], kernel * 0.75, atol=1e-7)
    # A value at the mean of its band stands for the mean of ImageNet: 0.485, 0.456, 0.406 or, for nir, 0.449.
    # These weights expect (value - 0.5) / 0.5.
    assert network.rescale.shift.flatten().tolist() == pytest.approx([-0.102, -0.03, -0.088, -0.188], abs=1e-6)
    assert network.rescale.scale.flatten().tolist() == pytest.approx([0.452, 0.458, 0.448, 0.45], abs=1e-3)


@pytest.mark.parametrize(("name", "readers"), [("test_resnet", 1), ("fastvit_t8", 2)])
def test_colours_in_another_order(tmp_path: Path, name: str, readers: int) -> None:
    path = save(drawn(timm.create_model(name)), tmp_path / "w.safetensors")
    turned = begin(f"timm:{name}", path, InputSpec(tuple(reversed(RGB.bands)), "uint8"))
    plain = begin(f"timm:{name}", path)
    assert len(plain.readers) == readers
    for own, other in zip(features_of(turned, IMAGES.flip(1)), features_of(plain, IMAGES), strict=True):
        assert torch.allclose(own, other, atol=1e-4 * float(other.abs().max()))


def test_an_encoder_that_reads_no_bands_takes_colours_alone(tmp_path: Path) -> None:
    """Its first layer reads squares of pixels, which were moved into channels."""
    path = save(timm.create_model("tresnet_m"), tmp_path / "w.safetensors")
    with pytest.raises(SettingsError, match=r"fed blue, green, red, and what reads them is no convolution over bands"):
        begin("timm:tresnet_m", path, InputSpec(tuple(reversed(RGB.bands)), "uint8"))


# ---- weights of ImageNet, which the library fetches: a stub here


def test_the_library_fetches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = drawn(timm.create_model("test_resnet"))
    asked: list[Any] = []

    def fetch(*given: Any, **more: Any) -> dict[str, Tensor]:
        asked.append(given)
        return dict(whole.state_dict())

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetch)
    monkeypatch.setattr("timm.models._builder.has_hf_hub", lambda *given, **more: True)
    network = begin("timm:test_resnet", "imagenet")
    assert asked == [("timm/test_resnet.r160_in1k",)]
    path = save(whole, tmp_path / "w.pt")
    assert torch.equal(network(IMAGES), network(IMAGES))
    for key, value in begin("timm:test_resnet", path).encoder.state_dict().items():
        assert torch.equal(value, network.encoder.state_dict()[key])
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *a, **m: 1 / 0)
    with pytest.raises(CheckpointError, match=r"cannot be fetched.*timm:test_resnet\?weights=FILE"):
        begin("timm:test_resnet", "imagenet")


def test_smp_fetches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = drawn(smp.encoders.get_encoder("resnet18"))
    published.fc = nn.Linear(512, 10)
    save(published, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}')
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda repo, filename, revision: str(tmp_path / filename))
    network = begin("smp:FPN/resnet18", "imagenet")
    assert torch.equal(network.encoder.layer2[0].conv1.weight, published.layer2[0].conv1.weight)
    assert network.rescale.scale.flatten().tolist() == pytest.approx([64 / 255 / s for s in (0.2, 0.3, 0.4)])


# ---- levels


@pytest.mark.parametrize(
    ("spec", "reductions", "last_of_first"),
    [
        ("timm:resnet10t", [2, 4, 8, 16, 32], "bn1"),
        ("timm:mobilenetv3_small_050", [2, 4, 8, 16, 32], "bn1"),
        ("timm:convnext_atto", [4, 8, 16, 32], "stages_0.blocks.1.mlp.fc2"),
        ("timm:vgg11", [1, 2, 4, 8, 16, 32], "features_0"),
        ("smp:Unet/resnet18", [2, 4, 8, 16, 32], "bn1"),
        ("smp:Segformer/mit_b0", [32], None),  # it reshapes its features, and counts as one level
    ],
)
def test_the_levels(spec: str, reductions: list[int], last_of_first: str | None) -> None:
    network = start_network(spec, 3)
    assert isinstance(network, OfLibrary)
    assert len(network.levels) == len(reductions)
    inside = [id(weight) for level in network.levels for weight in level.parameters()]
    assert sorted(inside) == sorted(id(weight) for weight in network.encoder.parameters())  # each in one level
    if last_of_first is not None:
        with_weights = [
            path for path in network.level_paths[0] if list(network.encoder.get_submodule(path).parameters())
        ]
        assert with_weights[-1].startswith(last_of_first.rpartition(".")[0]), with_weights
        assert network.notes[0].startswith(f"{spec} BEGINS WITH RANDOM WEIGHTS")


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:vgg11", "smp:Unet/resnet18", "smp:Segformer/mit_b0"])
def test_a_trained_network_begins_again_with_other_classes(name: str, tmp_path: Path) -> None:
    """Each kind keeps its head under another name; logits of a class that stays are those of before."""
    names = ("water", "road", "roof")
    before, now = ClassMap(names, _COLORS[:3]), ClassMap(("roof", "sand", "tree", "Water"), _COLORS)
    trained = drawn(build_network(name, 3))
    write_network(tmp_path / "w.safetensors", trained, NetworkRecord(name, before))
    network = start_network(str(tmp_path / "w.safetensors"), 4)
    note = match_head(network, str(tmp_path / "w.safetensors"), now)
    with torch.no_grad():
        own, found = trained(IMAGES), network.eval()(IMAGES)
    assert (
        found.shape == (2, 4, 64, 96) and note is not None and note.endswith("matched by name; sand, tree begin anew.")
    )
    torch.testing.assert_close(found[:, [3, 0]], own[:, [0, 2]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "count"),
    [("timm:test_resnet", 3), ("timm:test_efficientnet", 1), ("timm:test_convnext", 2), ("smp:Unet/resnet18", 2)],
)
def test_frozen_levels_have_no_gradients_and_their_statistics_do_not_move(spec: str, count: int) -> None:
    network = start_network(spec, 3)
    assert isinstance(network, OfLibrary)
    network.freeze(count, spec)
    network.train()
    frozen = {id(weight) for level in network.levels[:count] for weight in level.parameters()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    features = features_of(network.eval(), IMAGES)
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(2):
        network.train()(IMAGES).square().mean().backward()
        optimizer.step()
    assert all((weight.grad is None) == (id(weight) in frozen) for weight in network.parameters())
    inside = {name for name, value in network.named_parameters() if id(value) in frozen}
    owners = {name.rpartition(".")[0] for name in inside}
    for name, value in network.state_dict().items():
        if name.rpartition(".")[0] in owners:
            assert torch.equal(value, before[name]), name
        elif name.endswith("running_mean"):
            assert not torch.equal(value, before[name]), name
    now = features_of(network.eval(), IMAGES)
    begins = len(features) - len(network.levels)  # segmentation_models_pytorch also returns the images
    same = [torch.equal(own, other) for own, other in zip(features, now, strict=True)][begins:]
    assert same == [True] * count + [False] * (len(network.levels) - count)


@pytest.mark.parametrize(
    ("spec", "count"),
    [("smp:Unet/efficientnet-b0", 5), ("smp:Unet/efficientnet-b0", 3), ("timm:test_efficientnet", 2)],
)
def test_frozen_levels_drop_nothing_at_random(spec: str, count: int) -> None:
    """In smp's EfficientNet the *block* decides whether its branch is dropped, and has no weights of its own."""
    network = start_network(spec, 3)
    assert isinstance(network, OfLibrary)
    network.freeze(count, spec)
    network.train()
    features = [features_of(network, IMAGES) for _ in range(3)]
    begins = len(features[0]) - len(network.levels)
    for own, *others in list(zip(*features, strict=True))[begins : begins + count]:
        assert all(torch.equal(own, other) for other in others)
    is_open = [part.training for part in network.encoder.modules()]
    assert any(is_open) == (count < len(network.levels))


# ---- what is refused


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("timm:resnet10", r"timm \S+ has no encoder 'resnet10'; near it are resnet10t"),
        ("timm:hf-hub:a/b", "has no encoder 'hf-hub:a/b'"),
        ("timm:local-dir:/tmp", "has no encoder 'local-dir:/tmp'"),
        ("timm:resnet10t.nix", "knows no weights 'nix' of resnet10t; it knows resnet10t.c3_in1k"),
        ("timm:", "names no network of timm; expected is timm:NAME"),
        ("smp:Unet", "expected is smp:ARCHITECTURE/ENCODER"),
        ("smp:Unett/resnet18", "has no architecture 'Unett'; it has Unet, "),
        ("smp:Unet/resnet17", "has no encoder 'resnet17'; near it are resnet18"),
        ("smp:Unet/tu-resnet10", "has no encoder 'resnet10'; near it are resnet10t"),
        ("timm:resnet10t?depth=3", "there is no option depth; there is weights"),
        ("timm:resnet10t?weights=", "weights= is empty"),
        ("timm:resnet10t?weights", "bad query field"),
        ("timm:resnet10t?weights=imagenet&weights=imagenet", "stands there 2 times"),
        ("timm:resnet10t?weights=/nowhere/w.pt", "weights=/nowhere/w.pt: no such file"),
        ("timm:resnet10t?weights=/", "weights=/: a folder"),
        ("timm:resnet10t?weights=/dev/null", "a device|no such"),
        ("timm:vit_tiny_patch16_224", r"does not take images of any size.* doesn't match model \(224\)"),
        ("timm:swin_tiny_patch4_window7_224", "does not take images of any size"),
        ("timm:vit_so150m2_patch16_reg1_gap_256", "does not take images of any size"),
        ("smp:DPT/tu-vit_tiny_patch16_224", "does not take images of any size"),
        ("smp:PAN/resnet18", r"(?s)cannot be used here:.*input: uint8 images \(2, 3, 1, 1\) raise"),
    ],
)
def test_networks_that_cannot_be_used(spec: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        start_network(spec, 3)


def test_an_encoder_without_a_pyramid(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = flat

        def forward(self, images: Tensor) -> list[Tensor]:
            return [self.layers(images)]

    monkeypatch.setattr(timm, "create_model", lambda *given, **more: Flat())
    with pytest.raises(SettingsError, match=r"of 64 x 96 pixels its encoder makes \(8, 64, 96\); maps"):
        start_network("timm:resnet10t", 3)


class Ran:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("ran"),)


@pytest.mark.parametrize(
    ("spec", "of", "says"),
    [
        ("timm:test_resnet", lambda: timm.create_model("resnet10t"), "layer3.0.conv3.weight is missing; "),
        ("timm:test_resnet", lambda: timm.create_model("test_convnext"), r"conv1.0.weight is missing; "),
        ("timm:test_efficientnet", lambda: timm.create_model("test_efficientnet_gn"), "do not fit"),
        ("smp:Unet/resnet18", lambda: smp.encoders.get_encoder("resnet34"), "layer1.2.conv1.weight belongs to another"),
        ("smp:Unet/resnet34", lambda: smp.encoders.get_encoder("resnet18"), "layer1.2.conv1.weight is missing"),
        ("timm:test_resnet", lambda: timm.create_model("test_resnet", in_chans=4), r"\[32, 4, 3, 3\] instead of|shape"),
        ("timm:resnet18", lambda: timm.create_model("resnet18d"), r"conv1.weight is missing; "),
        ("timm:repvit_m0_9", lambda: timm.create_model("repvit_m1_0"), r"has the shape \[\d+, 3, 3, 3\] instead of"),
        ("timm:test_resnet", lambda: nn.Linear(2, 2), "is missing"),
    ],
)
def test_weights_of_another_architecture(tmp_path: Path, spec: str, of: Any, says: str) -> None:
    path = save(of(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=rf"w\.pt does not hold the weights of {spec}.*{says}"):
        begin(spec, path)


def test_files_that_hold_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = dict(timm.create_model("test_resnet").state_dict())
    torch.save({"model": Ran()}, tmp_path / "code.pt")
    torch.save(timm.create_model("test_resnet"), tmp_path / "object.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.safetensors").write_text("weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save(state | {"conv1.0.weight": torch.full_like(state["conv1.0.weight"], torch.nan)}, tmp_path / "nan.pt")
    torch.save(state | {"conv1.0.weight": state["conv1.0.weight"].to(torch.int8)}, tmp_path / "int8.pt")
    for name, says in {
        "code.pt": "could run code", "object.pt": "could run code", "list.pt": "holds no state_dict",
        "text.safetensors": "cannot be read", "empty.pt": "cannot be read", "nan.pt": "values that are not finite",
        "int8.pt": "conv1.0.weight holds int8",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=says):
            begin("timm:test_resnet", tmp_path / name)
    assert not (tmp_path / "ran").exists()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pt")
    begin("timm:test_resnet", tmp_path / "wrapped.pt")
    old = {key: value.half() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pt")
    assert begin("timm:test_resnet", tmp_path / "old.pt").encoder.conv1[0].weight.dtype == torch.float32
