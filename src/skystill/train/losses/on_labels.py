"""Student losses: callables that map (logits, labels) to a scalar.

All of them compute in float32, whatever the precision of the network.
"""

from collections.abc import Callable, Sequence

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


class ClassWeighted(nn.Module):
    """Base class of the student losses. It holds the weight of each class.

    Args:
        weights: (C,) numbers of 0 or more, in the order of the labels. By default all classes have the same weight, and
            the loss is computed without weights.

    Raises:
        SettingsError: a weight is negative or not finite, or all are 0.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weights: Tensor | None = None
        if weights is not None:
            self.weights = torch.tensor(weights, dtype=torch.float32)
            if not (self.weights.isfinite().all() and (self.weights >= 0).all() and (self.weights > 0).any()):
                raise SettingsError(f"weights of classes: {list(weights)}; give 0 or more, and one above 0.")

    def of_classes(self, logits: Tensor) -> Tensor:
        """Return the weights on the device of the logits (N, C, H, W).

        Raises:
            SettingsError: there is not one for each class.
        """
        assert self.weights is not None, "is called with weights"
        if len(self.weights) != logits.shape[1]:
            raise SettingsError(f"{len(self.weights)} weights of classes, but the network gives {logits.shape[1]}.")
        return self.weights.to(logits.device)

    def mean(self, of_pixel: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean of a loss (N, H, W) over the pixels that are not void, with the weight of their class."""
        valid = labels != VOID
        if self.weights is None:
            return mean_over(of_pixel, valid)
        of_label = self.of_classes(logits)[labels.where(valid, 0)].where(valid, 0.0)
        return _weighted_mean(of_pixel, of_label)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of some values with weights of the same shape, or 0 if all weights are 0."""
    total = weights.sum()
    return (values * weights).sum() / total.where(total > 0, 1.0)


class CrossEntropy(ClassWeighted):
    """Cross-entropy, averaged over the pixels that are not void.

        L = 1/|V| * sum over V of -log softmax(logits)[label]

    V are all pixels of the batch that are not void. With weights w of the classes it is what
    `torch.nn.functional.cross_entropy` computes with `weight`:

        L = 1/(sum over V of w[label]) * sum over V of w[label] * -log softmax(logits)[label]

    Shape:
        logits: (N, C, H, W) float, classes on axis 1.
        labels: (N, H, W) int64, 255 = void. Void pixels are left out of the mean.
        returns: float32 scalar; 0 if every pixel is void.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        of_pixel = negative_log_likelihood(logits, labels)
        if self.weights is not None:
            return self.mean(of_pixel, logits, labels)
        return of_pixel.sum() / (labels != VOID).count_nonzero().clamp(min=1)


class Focal(ClassWeighted):
    """Focal loss: cross-entropy with less weight on pixels that are already right.

        L = 1/|V| * sum over V of (1 - p)^gamma * -log p,  p = softmax(logits)[label]

    V are all pixels of the batch that are not void. The sum is divided by their number, not by the sum of the factors
    (1 - p)^gamma. With weights w of the classes, each term is multiplied by w[label], and the sum is divided by the sum
    of w[label] over V, as in `CrossEntropy`. Source: Lin 2017, arXiv 1708.02002, equation 4.

    Args:
        gamma: 0 or more. 0 is cross-entropy; a larger value concentrates the loss on pixels that are still wrong.
        weights: of the classes, as in `ClassWeighted`.

    Shape:
        As `CrossEntropy`.

    Raises:
        SettingsError: gamma is negative.
    """

    def __init__(self, gamma: float = 2.0, weights: Sequence[float] | None = None) -> None:
        super().__init__(weights)
        if gamma < 0:
            raise SettingsError(f"focal loss: gamma is {gamma:g}; it must be 0 or more.")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        of_pixel = negative_log_likelihood(logits, labels)
        return self.mean((1 - torch.exp(-of_pixel)) ** self.gamma * of_pixel, logits, labels)


class Dice(ClassWeighted):
    """Dice loss, averaged over the classes that occur in the labels of the batch.

        L = 1 - mean over present classes of (2 * sum p*t + 1) / (sum p + sum t + 1)

    p = softmax(logits), and t is the one-hot label. The sums run over all pixels of the batch that are not void.
    Classes without a label in the batch are left out: their term would only measure how little of them is predicted,
    whatever the truth. With weights of the classes, the mean over the present classes is a weighted one. The 1 keeps
    the term of small classes stable. Source: Milletari 2016, arXiv 1606.04797, with first powers in the denominator.

    Shape:
        As `CrossEntropy`.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        _, shared, predicted = class_sums(logits, labels)
        return dice(shared, predicted, labels, None if self.weights is None else self.of_classes(logits))


def dice(shared: Tensor, predicted: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute `Dice` from the sums that `class_sums` returns.

    Args:
        shared: (C,) float32, sum of p[label] for each label.
        predicted: (C,) float32, sum of p for each class.
        labels: (N, H, W) int64, 255 = void.
        weights: (C,) float32, of the classes; None for the same weight.

    Returns:
        float32 scalar; 0 if every pixel is void, or of a class with the weight 0.
    """
    num_classes = len(shared)
    bins = labels.clamp(max=num_classes).flatten()  # void is counted in an extra bin, which [:-1] drops
    size = torch.bincount(bins, minlength=num_classes + 1)[:-1]
    score = (2 * shared + 1) / (predicted + size + 1)
    if weights is None:
        return mean_over(1 - score, size > 0)
    return _weighted_mean(1 - score, weights.where(size > 0, 0.0))


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


def _cross_entropy_dice(weights: Sequence[float] | None = None) -> nn.Module:
    # With weights, two softmaxes are taken. Without, one is enough.
    return CrossEntropyDice() if weights is None else Sum(CrossEntropy(weights), Dice(weights))


# CONTRIBUTING.md says how to add a loss.
STUDENT_LOSSES: dict[str, Callable[..., nn.Module]] = {
    "ce": CrossEntropy,
    "focal": lambda weights=None: Focal(weights=weights),
    "ce+dice": _cross_entropy_dice,
    "focal+dice": lambda weights=None: Sum(Focal(weights=weights), Dice(weights)),
}


def build_student_loss(name: str, weights: Sequence[float] | None = None) -> nn.Module:
    """Build the student loss of a name.

    Args:
        name: a key of `STUDENT_LOSSES`.
        weights: of the classes, in the order of the labels; None for the same weight.

    Raises:
        SettingsError: no student loss has this name, or the weights cannot be used.
    """
    if name not in STUDENT_LOSSES:
        raise SettingsError(f"no student loss is called {name!r}; there are {', '.join(STUDENT_LOSSES)}.")
    return STUDENT_LOSSES[name](weights)
