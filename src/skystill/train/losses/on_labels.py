"""Student losses: callables that map (logits, labels) to a scalar.

All of them compute in float32, whatever the precision of the network.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skystill.classes import VOID
from skystill.errors import SettingsError
from skystill.train.losses.fused import class_sums, negative_log_likelihood

StudentLoss = Callable[[Tensor, Tensor], Tensor]


def mean_over(per_pixel: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the elements that are True in `valid`, or 0 if there are none.

    Args:
        per_pixel: float, one value for each pixel of the batch. Other shapes than (N, H, W) are allowed.
        valid: bool, of the same shape.
    """
    return per_pixel.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


class CrossEntropy(nn.Module):
    """Cross-entropy, averaged over the pixels that are not void.

        L = 1/|V| * sum over V of -log softmax(logits)[label]

    V are all pixels of the batch that are not void.

    Shape:
        logits: (N, C, H, W) float, classes on axis 1.
        labels: (N, H, W) int64, 255 = void. Void pixels are left out of the mean.
        returns: float32 scalar; 0 if every pixel is void.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        return negative_log_likelihood(logits, labels).sum() / (labels != VOID).count_nonzero().clamp(min=1)


class Focal(nn.Module):
    """Focal loss: cross-entropy with less weight on pixels that are already right.

        L = 1/|V| * sum over V of (1 - p)^gamma * -log p,  p = softmax(logits)[label]

    V are all pixels of the batch that are not void. The sum is divided by their number, not by the sum of the weights.
    Source: Lin 2017, arXiv 1708.02002, equation 4.

    Args:
        gamma: 0 or more. 0 is cross-entropy; a larger value concentrates the loss on pixels that are still wrong.

    Shape:
        As `CrossEntropy`.

    Raises:
        SettingsError: gamma is negative.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise SettingsError(f"focal loss: gamma is {gamma:g}; it must be 0 or more.")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        of_pixel = negative_log_likelihood(logits, labels)
        return mean_over((1 - torch.exp(-of_pixel)) ** self.gamma * of_pixel, labels != VOID)


class Dice(nn.Module):
    """Dice loss, averaged over the classes that occur in the labels of the batch.

        L = 1 - mean over present classes of (2 * sum p*t + 1) / (sum p + sum t + 1)

    p = softmax(logits), and t is the one-hot label. The sums run over all pixels of the batch that are not void.
    Classes without a label in the batch are left out: their term would only measure how little of them is predicted,
    whatever the truth. The 1 keeps the term of small classes stable. Source: Milletari 2016, arXiv 1606.04797, with
    first powers in the denominator.

    Shape:
        As `CrossEntropy`.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        _, shared, predicted = class_sums(logits, labels)
        return dice(shared, predicted, labels)


def dice(shared: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
    """Compute `Dice` from the sums that `class_sums` returns.

    Args:
        shared: (C,) float32, sum of p[label] for each label.
        predicted: (C,) float32, sum of p for each class.
        labels: (N, H, W) int64, 255 = void.

    Returns:
        float32 scalar; 0 if every pixel is void.
    """
    num_classes = len(shared)
    bins = labels.clamp(max=num_classes).flatten()  # void is counted in an extra bin, which [:-1] drops
    size = torch.bincount(bins, minlength=num_classes + 1)[:-1]
    score = (2 * shared + 1) / (predicted + size + 1)
    return mean_over(1 - score, size > 0)


class CrossEntropyDice(nn.Module):
    """The sum of `CrossEntropy` and `Dice`, each with weight 1, computed from one softmax.

    Shape:
        As `CrossEntropy`.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        total, shared, predicted = class_sums(logits, labels)
        return total / (labels != VOID).count_nonzero().clamp(min=1) + dice(shared, predicted, labels)


class Sum(nn.Module):
    """The sum of several student losses, each with weight 1.

    Args:
        losses: modules that map (logits, labels) to a scalar.

    Shape:
        As `CrossEntropy`.
    """

    def __init__(self, *losses: nn.Module) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        return torch.stack([loss(logits, labels) for loss in self.losses]).sum()


# CONTRIBUTING.md says how to add a loss.
STUDENT_LOSSES: dict[str, Callable[[], nn.Module]] = {
    "ce": CrossEntropy,
    "focal": Focal,
    "ce+dice": CrossEntropyDice,
    "focal+dice": lambda: Sum(Focal(), Dice()),
}


def build_student_loss(name: str) -> nn.Module:
    """Build the student loss of a name.

    Args:
        name: a key of `STUDENT_LOSSES`.

    Raises:
        SettingsError: no student loss has this name.
    """
    if name not in STUDENT_LOSSES:
        raise SettingsError(f"no student loss is called {name!r}; there are {', '.join(STUDENT_LOSSES)}.")
    return STUDENT_LOSSES[name]()
