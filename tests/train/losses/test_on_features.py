import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.train.loop.distiller import Distiller, FeatureTerm
from skystill.train.loop.gradients import GradientLog, WeightedLoss
from skystill.train.losses.on_features import (
    FEATURE_LOSSES,
    PKD,
    AttentionTransfer,
    CrossImage,
    FeatureHook,
    FitNet,
    IntraClassVariation,
    check_crop,
    to_one_size,
)
from skystill.train.networks.table import build_network

VOID = 255


def case(student_channels: int = 3, teacher_channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features at 1/4 of 2 labelled images of 16x20; the last rows are not valid."""
    rng = np.random.default_rng(seed)
    student = torch.tensor(rng.normal(0, 2, (2, student_channels, 4, 5)))
    teacher = torch.tensor(rng.normal(1, 3, (2, teacher_channels, 4, 5)))
    labels = torch.tensor(np.kron(rng.integers(0, 3, (2, 4, 5)), np.ones((4, 4), int)))
    valid = torch.ones(2, 16, 20, dtype=torch.bool)
    valid[:, 13:] = False
    return student, teacher, labels, valid


def number(loss: Tensor) -> float:
    return float(loss.detach())


def rows(features: Tensor) -> np.ndarray:
    """The valid cells of `case` in float64: (M, C)."""
    return features[:, :, :3].double().numpy().transpose(0, 2, 3, 1).reshape(-1, features.shape[1])


def test_pkd_is_one_minus_pearson() -> None:
    student, teacher, labels, valid = case()
    s, t = rows(student), rows(teacher)
    r = [np.corrcoef(s[:, channel], t[:, channel])[0, 1] for channel in range(3)]
    found = PKD(3, 3)(student, teacher, labels, valid)
    assert number(found) == pytest.approx(1 - np.mean(r), rel=1e-6)
    assert number(PKD(3, 3)(3 * teacher + 7, teacher, labels, valid)) == pytest.approx(0, abs=1e-6)  # scale-free


def test_attention_transfer_in_float64() -> None:
    student, teacher, labels, valid = case(3, 5)
    maps = []
    for features in (student, teacher):
        energy = (features[:, :, :3].double().numpy() ** 2).mean(1).reshape(2, -1)
        maps.append(energy / np.linalg.norm(energy, axis=1, keepdims=True))
    expected = ((maps[0] - maps[1]) ** 2).mean()
    assert number(AttentionTransfer()(student, teacher, labels, valid)) == pytest.approx(expected, rel=1e-6)


def test_attention_transfer_by_hand() -> None:
    # squares (9, 16) have length sqrt(337), and (0, 1) length 1: two cells
    student, teacher = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    expected = ((9 / 337**0.5) ** 2 + (16 / 337**0.5 - 1) ** 2) / 2
    assert number(AttentionTransfer()(student, teacher, valid.long(), valid)) == pytest.approx(expected, rel=1e-6)


def test_fitnet_in_float64() -> None:
    student, teacher, labels, valid = case(3, 5)
    loss = FitNet(3, 5)
    weight = loss.project.weight[:, :, 0, 0].detach().double().numpy()  # type: ignore[union-attr, operator]
    expected = ((rows(student) @ weight.T - rows(teacher)) ** 2).mean()
    assert number(loss(student, teacher, labels, valid)) == pytest.approx(expected, rel=1e-6)
    assert sum(p.numel() for p in loss.parameters()) == 15  # no bias


def test_ifvd_in_float64() -> None:
    student, teacher, labels, valid = case(3, 5)
    labels[0, :4, :4] = VOID
    labels[1, 0, 0] = 1 - labels[1, 0, 0] if labels[1, 0, 0] < 2 else 0  # a cell of two classes has no label
    cells = labels[:, 2::4, 2::4][:, :3].reshape(-1).numpy()
    pure = np.ones(30, bool)
    pure[[0, 15]] = False
    maps = []
    for features in (rows(student), rows(teacher)):
        means = {c: features[pure & (cells == c)].mean(0) for c in set(cells[pure].tolist())}
        own = np.array([means[c] for c in cells[pure].tolist()])
        kept = features[pure]
        maps.append((kept * own).sum(1) / np.linalg.norm(kept, axis=1) / np.linalg.norm(own, axis=1))
    expected = ((maps[0] - maps[1]) ** 2).mean()
    assert number(IntraClassVariation()(student, teacher, labels, valid)) == pytest.approx(expected, rel=1e-6)
    assert number(IntraClassVariation()(student, teacher, torch.full_like(labels, VOID), valid)) == 0


def test_one_pixel_of_a_large_cell_keeps_it_out() -> None:
    """Cells of 40 x 40: the variance of labels of which one in 1600 differs is 0.0006, and 99.94 % of it are valid."""
    student, teacher = torch.randn(1, 3, 1, 3), torch.randn(1, 3, 1, 3)
    labels, valid = torch.ones(1, 40, 120, dtype=torch.int64), torch.ones(1, 40, 120, dtype=torch.bool)
    every = number(IntraClassVariation()(student, teacher, labels, valid))
    left = number(IntraClassVariation()(student[..., 1:], teacher[..., 1:], labels[..., 40:], valid[..., 40:]))
    assert left != pytest.approx(every)
    for mask, value in ((labels, 2), (valid, False)):
        before = mask[0, 7, 5].clone()
        mask[0, 7, 5] = value
        assert number(IntraClassVariation()(student, teacher, labels, valid)) == pytest.approx(left, rel=1e-6)
        mask[0, 7, 5] = before


def test_cirkd_in_float64() -> None:
    student, teacher, labels, valid = case(3, 5)
    expected = 0.0
    units = []
    for features in (student, teacher):
        flat = features[:, :, :3].double().numpy().reshape(2, features.shape[1], -1)
        units.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    for i in range(2):
        for j in range(2):
            q, p = (np.exp(u[i].T @ u[j] / 0.1) for u in units)
            q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
            expected += (p * np.log(p / q)).sum(1).mean() / 4
    assert number(CrossImage()(student, teacher, labels, valid)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", list(FEATURE_LOSSES))
def test_feature_losses_obey_their_laws(name: str) -> None:
    student, teacher, labels, valid = case(4, 4)
    loss = FEATURE_LOSSES[name](4, 4)
    if name == "fitnet":
        nn.init.dirac_(loss.project.weight)  # type: ignore[union-attr, operator, arg-type]
    assert number(loss(teacher, teacher, labels, valid)) == pytest.approx(0, abs=1e-6)
    value = loss(student.requires_grad_(True), teacher, labels, valid)
    assert number(value) > 0 and value.dtype == torch.float32
    changed = teacher.clone()
    changed[:, :, 3] = 99.0  # nothing enters from outside
    assert number(loss(student, changed, labels, valid)) == pytest.approx(number(value), rel=1e-6)
    value.backward()
    assert student.grad is not None and bool(student.grad.isfinite().all())
    assert bool(student.grad[:, :, :3].abs().max() > 0) and bool(student.grad[:, :, 3].abs().max() == 0)
    nowhere = loss(student, teacher, labels, torch.zeros_like(valid))
    assert number(nowhere) == 0
    other = FEATURE_LOSSES[name](4, 7)  # other width, other stride
    finer = torch.randn(2, 7, 8, 10, dtype=torch.float64)
    assert number(other(student, finer, labels, valid)) > 0


def test_the_finer_features_are_averaged_and_cells_in_part_valid_do_not_count() -> None:
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[0, 7, 7] = False
    one, other, whole = to_one_size(fine, torch.zeros(1, 1, 2, 2), valid)
    assert one[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert other.shape == one.shape
    assert whole[0].tolist() == [[True, True], [True, False]]


def test_layers_are_named_by_path_and_near_ones_listed() -> None:
    network = build_network("kite-small", 4)
    tap = FeatureHook(network, None, "student")
    network(torch.zeros(1, 3, 32, 32))
    assert tap.path == "levels.2" and tap.take().shape == (1, 48, 2, 2)
    with pytest.raises(SettingsError, match="gives no tensor"):
        tap.take()
    with pytest.raises(SettingsError, match=r"no layer 'level.2' \(--student-layer\); near it are .*levels\.2"):
        FeatureHook(network, "level.2", "student")
    with pytest.raises(SettingsError, match=r"say which layer of the teacher .* it has 0, 1"):
        FeatureHook(nn.Sequential(nn.Identity(), nn.Identity()), None, "teacher")


def distiller(loss: str, teacher_channels: int = 12, more: str = "") -> tuple[Distiller, FeatureTerm]:
    """A distiller with a feature loss of weight 2, and if asked for another one of weight 5."""
    torch.manual_seed(0)
    student = build_network("kite?channels=(8,12)&blocks=(1,1)", 3)
    teacher = build_network(f"kite?channels=(8,{teacher_channels})&blocks=(1,1)", 3)
    made = Distiller(student, teacher, Fabric(accelerator="cpu", devices=1))
    taps = FeatureHook(student, None, "student"), FeatureHook(made.teachers[0].network, None, "teacher")
    term = FeatureTerm(loss, 2.0, FEATURE_LOSSES[loss](12, teacher_channels), *taps)
    terms = [term, *([FeatureTerm(more, 5.0, FEATURE_LOSSES[more](12, teacher_channels), *taps)] if more else [])]
    made.compile(torch.optim.SGD(student.parameters(), lr=0.05), alpha=0.5, features=terms)
    made.stepper.plan(8, "constant", 0.0)
    return made, term


@pytest.mark.parametrize("loss", list(FEATURE_LOSSES))
def test_features_are_learnt_and_only_the_student_and_the_projection_move(loss: str) -> None:
    made, term = distiller(loss, 20)
    teacher = {name: value.clone() for name, value in made.teachers[0].state_dict().items()}
    projection = [p.detach().clone() for p in term.loss.parameters()]
    assert len(projection) == (loss in ("pkd", "fitnet"))  # these learn to widen the student
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels = torch.arange(2).repeat_interleave(32).expand(2, 64, 64)
    found = []
    for _ in range(8):
        made.meter.reset()
        found.append(made.train_step((images, labels)))
    assert found[-1][f"{loss}_loss"] < found[0][f"{loss}_loss"]
    parts = found[0]["logits_loss"] + 2 * found[0][f"{loss}_loss"]
    assert found[0]["distillation_loss"] == pytest.approx(parts, rel=1e-6)
    assert all(torch.equal(value, teacher[name]) for name, value in made.teachers[0].state_dict().items())
    assert all(not torch.equal(p, before) for p, before in zip(term.loss.parameters(), projection, strict=True))
    assert set(made.gradients.means()) == {"student loss", "logits", loss}


def test_losses_on_features_are_added() -> None:
    """Two losses share the layers that they compare, and each is read once."""
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(2).repeat_interleave(32).expand(2, 64, 64)
    alone = {}
    for loss in ("pkd", "at"):
        made, _ = distiller(loss)
        alone[loss] = made.train_step((images, labels))[f"{loss}_loss"]
    made, _ = distiller("pkd", more="at")
    found = made.train_step((images, labels))
    assert {name: found[f"{name}_loss"] for name in alone} == pytest.approx(alone, rel=1e-5)
    parts = found["logits_loss"] + 2 * found["pkd_loss"] + 5 * found["at_loss"]
    assert found["distillation_loss"] == pytest.approx(parts, rel=1e-6)


@pytest.mark.parametrize(
    ("crop", "multiples", "near"),
    [(256, (16, 32), None), (96, (16, 32), None), (300, (16, 32), 288), (100, (16, 32), 96), (40, (8, 64), 64),
     (200, (16, 1), 192), (90, (2,), None), (60, (), None)],
)  # fmt: skip
def test_crops_that_two_networks_pad_differently_are_refused(
    crop: int, multiples: tuple[int, ...], near: int | None
) -> None:
    networks = [nn.Identity() for _ in multiples]
    for network, multiple in zip(networks, multiples, strict=True):
        network.multiple = multiple
    networks.append(nn.Identity())
    if near is None:
        return check_crop(crop, *networks)
    with pytest.raises(SettingsError, match=rf"--crop {crop}: .* Choose --crop {near}\."):
        check_crop(crop, *networks)
    return None


def test_a_checkpoint_holds_the_projection() -> None:
    made, term = distiller("fitnet", 20)
    images, labels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 32, 32, dtype=torch.long)
    made.train_step((images, labels))
    state = made.stepper.state()
    other, other_term = distiller("fitnet", 20)
    other.stepper.load(state)
    mine, theirs = next(term.loss.parameters()), next(other_term.loss.parameters())
    assert torch.equal(mine, theirs) and mine is not theirs


def test_pulls_are_norms_of_weighed_gradients_and_unequal_ones_are_warned_of() -> None:
    logits = torch.ones(1, 2, 2, 2, requires_grad=True)
    hidden = logits * 1.0
    log = GradientLog()
    parts = {
        "student loss": WeightedLoss((3 * hidden).sum(), 0.5),
        "kl": WeightedLoss((hidden * 4).sum(), 0.25),
        "fitnet": WeightedLoss((600 * hidden).sum(), 1.0, hidden),
        "off": WeightedLoss(hidden.sum(), 0.0),
    }
    log.add(hidden, parts)
    length = 8**0.5
    assert log.means() == pytest.approx({"student loss": 1.5 * length, "kl": length, "fitnet": 600 * length})
    assert "the fitnet pulls 600 times as hard as the kl" in str(log.warning())
    calm = GradientLog()
    calm.add(hidden, {name: parts[name] for name in ("student loss", "kl")})
    assert calm.warning() is None
    assert GradientLog().warning() is None
