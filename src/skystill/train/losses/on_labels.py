"""Student losses: (logits, labels) to a scalar. All compute in float32, whatever the network ran in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skystill.classes import VOID
from skystill.errors import SettingsError
from skystill.train.losses.fused import class_sums, negative_log_likelihood

StudentLoss = Callable[[Tensor, Tensor], Tensor]


def mean_over(per_pixel: Tensor, valid: Tensor) -> Tensor:
    """Mean of (N, H, W) over the pixels that are True in `valid`; 0 where none is."""
    return per_pixel.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


class CrossEntropy(nn.Module):
    """L = 1/|V| * sum over valid pixels of -log softmax(logits)[label].

    Shape:
        logits: (N, C, H, W) float. labels: (N, H, W) int64, 255 = void, left out of the mean.
        returns: float32 scalar; 0 where every pixel is void.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        return negative_log_likelihood(logits, labels).sum() / (labels != VOID).count_nonzero().clamp(min=1)


class Focal(nn.Module):
    """L = 1/|V| * sum over valid pixels of (1 - p)^gamma * -log p, p = softmax(logits)[label].

    Source: Lin 2017, arXiv 1708.02002, equation 4.

    Args:
        gamma: 0 is cross-entropy; more turns the loss to pixels that are still wrong.

    Shape:
        as `CrossEntropy`.

    Raises:
        SettingsError: gamma is negative.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise SettingsError(f"focal loss: gamma is {gamma:g}; it must be 0 or more.")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        of_pixel = negative_log_likelihood(logits, labels)
        return mean_over((1 - torch.exp(-of_pixel)) ** self.gamma * of_pixel, labels != VOID)


class Dice(nn.Module):
    """L = 1 - mean over present classes of (2 * sum p*t + 1) / (sum p + sum t + 1), p = softmax(logits), t = one-hot.

    The sums run over all valid pixels of the batch. Classes without a label in the batch are left out: their term
    would only say how little is predicted, whatever the truth. Source: Milletari 2016, arXiv 1606.04797, with first
    powers in the denominator; the 1 keeps small classes stable.

    Shape:
        as `CrossEntropy`.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        _, shared, predicted = class_sums(logits, labels)
        return dice(shared, predicted, labels)


def dice(shared: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
    """`Dice` from the sums of `class_sums`."""
    num_classes = len(shared)
    bins = labels.clamp(max=num_classes).flatten()  # void goes to a bin of its own, cut off
    size = torch.bincount(bins, minlength=num_classes + 1)[:-1]
    score = (2 * shared + 1) / (predicted + size + 1)
    return mean_over(1 - score, size > 0)


class CrossEntropyDice(nn.Module):
    """`CrossEntropy` + `Dice`, from one softmax.

    Shape:
        as `CrossEntropy`.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        total, shared, predicted = class_sums(logits, labels)
        return total / (labels != VOID).count_nonzero().clamp(min=1) + dice(shared, predicted, labels)


class Sum(nn.Module):
    """The sum of several student losses, each with weight 1."""

    def __init__(self, *losses: nn.Module) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See the class."""
        return torch.stack([loss(logits, labels) for loss in self.losses]).sum()


# To add a loss: a class above, a line here, a case worked by hand in tests/train/losses/test_losses.py.
STUDENT_LOSSES: dict[str, Callable[[], nn.Module]] = {
    "ce": CrossEntropy,
    "focal": Focal,
    "ce+dice": CrossEntropyDice,
    "focal+dice": lambda: Sum(Focal(), Dice()),
}


def build_student_loss(name: str) -> nn.Module:
    """A student loss by name.

    Raises:
        SettingsError: no such loss.
    """
    if name not in STUDENT_LOSSES:
        raise SettingsError(f"no student loss is called {name!r}; there are {', '.join(STUDENT_LOSSES)}.")
    return STUDENT_LOSSES[name]()
