"""Feature losses: callables that compare a layer of the student with a layer of the teacher.

All of them map (student, teacher, labels, valid) to a scalar.

Shape:
    student: (N, C, h, w) float, features of the student.
    teacher: (N, C, h, w) float, features of the teacher. C, h and w may differ from the student's.
    labels: (N, H, W) int64, 255 = void. Only `IntraClassVariation` uses them.
    valid: (N, H, W) bool. False pixels, such as padding, are left out.
    returns: float32 scalar; 0 if no cell counts.

The features are averaged down to the smaller height and the smaller width of the two. A cell is one position of the
resulting maps. It counts if its pixels are valid; `to_one_size` gives the exact rule. All losses compute in float32,
whatever the precision of the networks.
"""

import difflib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.classes import VOID
from skystill.errors import SettingsError
from skystill.train.losses.on_labels import mean_over

FeatureLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def to_one_size(student: Tensor, teacher: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average both features down to the smaller height and width, and find the cells that count.

    Args:
        student: (N, C, h, w) float.
        teacher: (N, C, h, w) float; C, h and w may differ from the student's.
        valid: (N, H, W) bool.

    Returns:
        The student's and the teacher's features, (N, C, h, w) float32 with the smaller h and w of the two, and the
        cells that count, (N, h, w) bool: those of which all pixels are valid.
    """
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    whole = -F.adaptive_max_pool2d(-valid[:, None].float(), size)[:, 0] > 0
    return F.adaptive_avg_pool2d(student.float(), size), F.adaptive_avg_pool2d(teacher.float(), size), whole


def check_crop(crop: int, *networks: nn.Module) -> None:
    """Refuse crops that the networks pad by different numbers of pixels: their cells would not be the same places.

    Args:
        crop: side of the crops in pixels.
        networks: those whose features are compared. One without the attribute `multiple` pads nothing.

    Raises:
        SettingsError: `crop` is not divisible by all multiples.
    """
    multiple = math.lcm(*(int(getattr(network, "multiple", 1)) for network in networks))
    if crop % multiple:
        near = max(multiple, round(crop / multiple) * multiple)
        raise SettingsError(
            f"--crop {crop}: where features are compared, both networks must see the same places, and they take "
            f"multiples of {multiple} pixels. Choose --crop {near}."
        )


class Projected(nn.Module):
    """Base of the feature losses that compare channel with channel.

    A trainable 1x1 convolution without bias gives the student's features as many channels as the teacher's.

    Args:
        student_channels: C of the student's features.
        teacher_channels: C of the teacher's features.
        always: True to project even if both have the same number of channels.
    """

    def __init__(self, student_channels: int, teacher_channels: int, always: bool) -> None:
        super().__init__()
        needed = always or student_channels != teacher_channels
        self.project: nn.Module = (
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False) if needed else nn.Identity()
        )


class PKD(Projected):
    """PKD: half the mean squared difference of standardised features, which is 1 - Pearson's r per channel.

        L = 1/2 * mean over channels and valid cells of (z(student) - z(teacher))^2,  z(f) = (f - mean) / (std + 1e-6)

    Mean and standard deviation of each channel run over all valid cells of the batch. There is no temperature and no
    scale to tune. If the numbers of channels differ, the student's features are projected first. Source: Cao 2022,
    arXiv 2207.02039, equations 3 and 4.

    Args:
        student_channels: C of the student's features.
        teacher_channels: C of the teacher's features.

    Shape:
        See the docstring of the module.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, always=False)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula, that of the module the shapes."""
        student, teacher, whole = to_one_size(self.project(student.float()), teacher, valid)
        if not whole.any():
            return student.sum() * 0
        one, other = (_standard(f.permute(0, 2, 3, 1)[whole]) for f in (student, teacher))
        return (one - other).square().mean() / 2


def _standard(rows: Tensor) -> Tensor:
    """Standardise each column of (M, C) to mean 0 and standard deviation 1."""
    return (rows - rows.mean(dim=0)) / (rows.std(dim=0, correction=0) + 1e-6)


class AttentionTransfer(nn.Module):
    """Attention transfer (AT): mean squared difference of normalised attention maps.

        L = mean over valid cells of (a(student) - a(teacher))^2

    The attention map a of an image is the mean over channels of f^2, 0 outside the valid cells, divided by its L2 norm
    over the cells of this image. The mean runs over the valid cells of the batch. Source: Zagoruyko 2017,
    arXiv 1612.03928, equation 2 with p = 2.

    Shape:
        See the docstring of the module.
    """

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula, that of the module the shapes."""
        student, teacher, whole = to_one_size(student, teacher, valid)
        one, other = (
            F.normalize(f.square().mean(dim=1).where(whole, 0.0).flatten(1), dim=1) for f in (student, teacher)
        )
        return mean_over((one - other).square(), whole.flatten(1))


class FitNet(Projected):
    """FitNet: mean squared difference of the projected student's features and the teacher's.

        L = mean over channels and valid cells of (W student - teacher)^2

    W is a 1x1 convolution without bias. It is trained with the student, and is used even if the numbers of channels are
    equal. Source: Romero 2015, arXiv 1412.6550, equation 3, with the convolutional regressor recommended there.

    Args:
        student_channels: C of the student's features.
        teacher_channels: C of the teacher's features.

    Shape:
        See the docstring of the module.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, always=True)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula, that of the module the shapes."""
        student, teacher, whole = to_one_size(self.project(student.float()), teacher, valid)
        return mean_over((student - teacher).square().mean(dim=1), whole)


class IntraClassVariation(nn.Module):
    """IFVD: difference in the similarity of features to the mean feature of their own class.

        L = mean over cells with a label of (cos(student, its class's mean) - cos(teacher, its class's mean))^2

    The mean feature of a class runs over all cells of this class in the batch, separately for student and teacher. A
    valid cell has a label if all its pixels have the same label and it is not void. Source: Wang 2020, ECCV,
    "Intra-class Feature Variation Distillation", equations 1 to 3.

    Shape:
        See the docstring of the module.
    """

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula, that of the module the shapes."""
        student, teacher, whole = to_one_size(student, teacher, valid)
        size = (student.shape[2], student.shape[3])
        least, most = (sign * F.adaptive_max_pool2d(sign * labels[:, None].float(), size)[:, 0] for sign in (-1, 1))
        pure = whole & (least == most) & (most != VOID)
        if not pure.any():
            return student.sum() * 0
        truth = most.long()[pure]
        one, other = (_to_own_class(f.permute(0, 2, 3, 1)[pure], truth) for f in (student, teacher))
        return (one - other).square().mean()


def _to_own_class(rows: Tensor, truth: Tensor) -> Tensor:
    """Return the cosine similarity of each row with the mean row of its class.

    Args:
        rows: (M, C) float32.
        truth: (M,) int64, the class of each row.

    Returns:
        (M,) float32.
    """
    count = int(truth.max()) + 1
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, truth, rows)
    means = sums / torch.bincount(truth, minlength=count).clamp(min=1)[:, None]
    return F.cosine_similarity(rows, means[truth], dim=1)


class CrossImage(nn.Module):
    """CIRKD within the batch: divergence of the similarities between the cells of all images.

        L = 1/B^2 * sum over pairs of images (i, j) of the mean over cells p of i of
            KL( softmax_q(t_ip . t_jq / 0.1) || softmax_q(s_ip . s_jq / 0.1) ),  q over the cells of j

    s and t are the student's and the teacher's features, divided by their L2 norm over channels. B is the number of
    images. Only valid cells count, for p and for q. Memory grows with the square of the number of cells in the batch,
    so features are averaged down to at most 16 x 16 cells first. Source: Yang 2022, arXiv 2204.06986, equations 5 and
    6.

    Shape:
        See the docstring of the module.
    """

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula, that of the module the shapes."""
        largest = (min(16, student.shape[2]), min(16, student.shape[3]))
        student, teacher, whole = to_one_size(F.adaptive_avg_pool2d(student.float(), largest), teacher, valid)
        one, other = (F.normalize(f.flatten(2), dim=1) for f in (student, teacher))  # (B, C, P)
        there = whole.flatten(1)
        log_one, log_other = (self._alike(f, there) for f in (one, other))  # (B, P, B, P)
        rows = (log_other.exp() * (log_other - log_one)).where(there[None, None], 0.0).sum(dim=3)  # (B, P, B)
        of_pair = rows.where(there[:, :, None], 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)[:, None]
        return of_pair.mean()

    def _alike(self, features: Tensor, there: Tensor) -> Tensor:
        similarity = torch.einsum("icp,jcq->ipjq", features, features) / 0.1
        return F.log_softmax(similarity.where(there[None, None], -1e4), dim=3)


# Maps a name to a function of the student's and the teacher's number of channels. CONTRIBUTING.md: how to add a loss.
FEATURE_LOSSES: dict[str, Callable[[int, int], nn.Module]] = {
    "pkd": PKD,
    "at": lambda student, teacher: AttentionTransfer(),
    "fitnet": FitNet,
    "ifvd": lambda student, teacher: IntraClassVariation(),
    "cirkd": lambda student, teacher: CrossImage(),
}


class FeatureHook:
    """A forward hook that keeps the output of one layer from the last forward pass.

    Args:
        network: the network that contains the layer.
        path: the module path of the layer, such as levels.2. None means the network's own `feature_layer`.
        whose: "student" or "teacher", for messages.

    Raises:
        SettingsError: path is None and the network has no `feature_layer`, or no layer has this path. The message lists
            layers that exist.
    """

    def __init__(self, network: nn.Module, path: str | None, whose: str) -> None:
        self.path = path or getattr(network, "feature_layer", None)
        self.whose = whose
        self._last: Tensor | None = None
        names = [name for name, _ in network.named_modules() if name]
        if not self.path:
            shown = ", ".join(names[:12]) or "none that torch can see"
            raise SettingsError(f"say which layer of the {whose} to compare with --{whose}-layer; it has {shown}, ...")
        if self.path not in names:
            near = difflib.get_close_matches(self.path, names, n=5, cutoff=0.3) or names[:5]
            raise SettingsError(
                f"the {whose} has no layer {self.path!r} (--{whose}-layer); near it are {', '.join(near) or 'none'}."
            )
        network.get_submodule(self.path).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        self._last = output if isinstance(output, Tensor) else None

    def take(self) -> Tensor:
        """Return the output (N, C, h, w) of the last forward pass, and release it.

        Raises:
            SettingsError: the layer did not run since the last call, or its output is not such a tensor.
        """
        features, self._last = self._last, None
        if features is None or features.ndim != 4:
            found = "no tensor" if features is None else f"shape {tuple(features.shape)}"
            raise SettingsError(f"layer {self.path} of the {self.whose} gives {found}; a map (N, C, h, w) is needed.")
        return features
