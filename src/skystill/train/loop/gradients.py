"""Compares the gradients of the parts of the loss in the first steps.

A part whose gradient is far larger than the others dominates the training, and a warning is given early.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightedLoss:
    """A part of the loss, with its weight and the tensor that it is computed from.

    Args:
        value: the loss, a scalar.
        weight: weight of the loss in the sum.
        at: student features (N, C, h, w), if the loss is computed from features; None for a loss on logits.
        means: means of the logits over blocks, (N, C, h, w), if the loss is computed from these; otherwise None.
        side: side of these blocks in pixels.
    """

    value: Tensor
    weight: float
    at: Tensor | None = None
    means: Tensor | None = None
    side: int = 1

    def weighed(self, factor: float) -> "WeightedLoss":
        """Return the same loss with its weight multiplied by a factor."""
        return replace(self, weight=self.weight * factor)


class GradientLog:
    """Records the norm of the weighted gradient at the logits, for each part of the loss in the first steps.

    A loss on features has no gradient at the logits. Its gradient is compared with that of the student loss at these
    features, and scaled by the gradient of the student loss at the logits.
    """

    steps = 5
    _WARNING_RATIO = 100.0

    def __init__(self) -> None:
        self.sizes: dict[str, list[float]] = {}

    def due(self, step: int) -> bool:
        """Return whether the gradients of this step are recorded."""
        return step < self.steps

    def add(self, logits: Tensor, parts: Mapping[str, WeightedLoss]) -> None:
        """Record the gradients of one step. The graph is kept, because the step still needs it for its backward pass.

        Args:
            logits: (N, C, H, W), the student's.
            parts: name to part of the loss. It must contain "student loss".
        """
        reference = parts["student loss"]
        at_logits = _gradient_norm(reference, logits)
        for name, part in parts.items():
            if part is reference:
                size = at_logits
            elif part.at is not None:
                size = _gradient_norm(part, part.at) * at_logits / max(_gradient_norm(reference, part.at), 1e-30)
            elif part.means is not None:
                # The gradient of a mean is spread evenly over side^2 pixels, so that its norm is divided by side.
                size = _gradient_norm(part, part.means) / part.side
            else:
                size = _gradient_norm(part, logits)
            self.sizes.setdefault(name, []).append(size)

    def means(self) -> dict[str, float]:
        """Return the mean norm over the first steps, for each part that has a gradient."""
        return {name: sum(sizes) / len(sizes) for name, sizes in self.sizes.items() if any(sizes)}

    def warning(self) -> str | None:
        """Describe the largest and the smallest gradient in a sentence.

        Returns None if the largest is less than a hundred times the smallest.
        """
        means = self.means()
        if not means:
            return None
        strong, weak = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        ratio = means[strong] / means[weak]
        if ratio < self._WARNING_RATIO:
            return None
        return (
            f"in the first steps the {strong} pulls {ratio:,.0f} times as hard as the {weak}, which will hardly be "
            "learnt from; weigh it in --distillation-loss (such as kl+0.1*fitnet), or change --alpha."
        )


def _gradient_norm(part: WeightedLoss, at: Tensor) -> float:
    """Return the norm of the gradient of a part at a tensor, multiplied by the weight of the part."""
    if part.weight == 0 or not part.value.requires_grad:
        return 0.0
    (gradient,) = torch.autograd.grad(part.value, at, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else part.weight * float(torch.linalg.vector_norm(gradient, dtype=torch.float32))
