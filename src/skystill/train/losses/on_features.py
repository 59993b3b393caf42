"""Feature losses: what a layer of the student is taught by a layer of the teacher.

All take (student_features, teacher_features, labels, valid), features (N, C, h, w) of any two sizes and widths, labels
(N, H, W) int64 with 255 = void, valid (N, H, W) bool. The larger features are averaged down to the smaller; a cell
counts where all its pixels are valid. All compute in float32 and are 0 where no cell counts.
"""

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.classes import VOID
from skystill.errors import SettingsError
from skystill.train.losses.on_labels import mean_over

FeatureLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def to_one_size(student: Tensor, teacher: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features in float32, averaged down to the smaller of both sizes, and the cells (N, h, w) that are all valid."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    whole = F.adaptive_avg_pool2d(valid[:, None].float(), size)[:, 0] > 0.999
    return F.adaptive_avg_pool2d(student.float(), size), F.adaptive_avg_pool2d(teacher.float(), size), whole


class Projected(nn.Module):
    """A feature loss that compares channel with channel: a 1x1 convolution brings the student to the teacher's width.

    Args:
        student_channels: C of the student's features.
        teacher_channels: C of the teacher's.
        always: whether to project where both are equal as well.
    """

    def __init__(self, student_channels: int, teacher_channels: int, always: bool) -> None:
        super().__init__()
        needed = always or student_channels != teacher_channels
        self.project: nn.Module = (
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False) if needed else nn.Identity()
        )


class PKD(Projected):
    """L = 1/2 * mean over channels and valid cells of (z(student) - z(teacher))^2, which is 1 - Pearson's r.

    z standardises each channel over all valid cells of the batch: (f - mean) / (std + 1e-6). Source: Cao 2022, arXiv
    2207.02039, equations 3 and 4; there is no temperature and no scale to tune.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, always=False)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """See the module."""
        student, teacher, whole = to_one_size(self.project(student.float()), teacher, valid)
        if not whole.any():
            return student.sum() * 0
        one, other = (_standard(f.permute(0, 2, 3, 1)[whole]) for f in (student, teacher))
        return (one - other).square().mean() / 2


def _standard(rows: Tensor) -> Tensor:
    """(M, C), each column to mean 0 and spread 1."""
    return (rows - rows.mean(dim=0)) / (rows.std(dim=0, correction=0) + 1e-6)


class AttentionTransfer(nn.Module):
    """L = mean over valid cells of (a(student) - a(teacher))^2, a = mean over channels of f^2, of length 1 an image.

    Source: Zagoruyko 2017, arXiv 1612.03928, equation 2 with p = 2.
    """

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """See the module."""
        student, teacher, whole = to_one_size(student, teacher, valid)
        one, other = (
            F.normalize(f.square().mean(dim=1).where(whole, 0.0).flatten(1), dim=1) for f in (student, teacher)
        )
        return mean_over((one - other).square(), whole.flatten(1))


class FitNet(Projected):
    """L = mean over channels and valid cells of (W student - teacher)^2, W a 1x1 convolution without bias.

    Source: Romero 2015, arXiv 1412.6550, equation 3, with the regressor of convolutions it recommends.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, always=True)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """See the module."""
        student, teacher, whole = to_one_size(self.project(student.float()), teacher, valid)
        return mean_over((student - teacher).square().mean(dim=1), whole)


class IntraClassVariation(nn.Module):
    """IFVD: how far features lie from the mean of their own class.

        L = mean over cells with a label of (cos(student, its class's mean) - cos(teacher, its class's mean))^2

    The means run over all cells of a class in the batch; a cell has a label where all its pixels have the same one.
    Source: Wang 2020, ECCV, "Intra-class Feature Variation Distillation", equations 1 to 3.
    """

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """See the module."""
        student, teacher, whole = to_one_size(student, teacher, valid)
        size = (student.shape[2], student.shape[3])
        mean_label = F.adaptive_avg_pool2d(labels[:, None].float(), size)[:, 0]
        mean_square = F.adaptive_avg_pool2d(labels[:, None].float().square(), size)[:, 0]
        pure = whole & ((mean_square - mean_label.square()).abs() < 1e-3) & (mean_label.round() != VOID)
        if not pure.any():
            return student.sum() * 0
        truth = mean_label.round().long()[pure]
        one, other = (_to_own_class(f.permute(0, 2, 3, 1)[pure], truth) for f in (student, teacher))
        return (one - other).square().mean()


def _to_own_class(rows: Tensor, truth: Tensor) -> Tensor:
    """Cosine (M,) of rows (M, C) and the mean row of their class (M,)."""
    count = int(truth.max()) + 1
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, truth, rows)
    means = sums / torch.bincount(truth, minlength=count).clamp(min=1)[:, None]
    return F.cosine_similarity(rows, means[truth], dim=1)


class CrossImage(nn.Module):
    """CIRKD: which cells of which images look alike, within the batch.

        L = 1/B^2 * sum over pairs of images (i, j) of the mean over cells p of i of
            KL( softmax_q(t_ip . t_jq / 0.1) || softmax_q(s_ip . s_jq / 0.1) ),  q over the cells of j

    s and t are features of length 1. Source: Yang 2022, arXiv 2204.06986, equations 5 and 6. Memory grows with the
    square of all cells of the batch, so features are averaged down to at most 16 x 16 first.
    """

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """See the module."""
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


# To add a feature loss: a class above, a line here (student's and teacher's channels to a module), a case worked out in
# tests/train/losses/test_on_features.py.
FEATURE_LOSSES: dict[str, Callable[[int, int], nn.Module]] = {
    "pkd": PKD,
    "at": lambda student, teacher: AttentionTransfer(),
    "fitnet": FitNet,
    "ifvd": lambda student, teacher: IntraClassVariation(),
    "cirkd": lambda student, teacher: CrossImage(),
}


class FeatureHook:
    """Keeps what a layer of a network gave in its last forward pass.

    Args:
        network: where the layer is.
        path: the layer's module path, such as levels.2; None for the network's own `feature_layer`.
        whose: "student" or "teacher", for messages.

    Raises:
        SettingsError: no such layer; the near ones are named.
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
        """The last output (N, C, h, w); it is forgotten here.

        Raises:
            SettingsError: the layer did not run, or gives something else.
        """
        features, self._last = self._last, None
        if features is None or features.ndim != 4:
            found = "no tensor" if features is None else f"shape {tuple(features.shape)}"
            raise SettingsError(f"layer {self.path} of the {self.whose} gives {found}; a map (N, C, h, w) is needed.")
        return features
