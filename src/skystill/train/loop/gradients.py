"""How hard each part of the loss pulls at the student: looked at in the first steps, so that nobody is surprised."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightedLoss:
    """A part of the loss.

    Args:
        value: the loss.
        weight: of it in the sum.
        at: the student's features it is computed from; None for its logits.
        means: of the logits over blocks, where it is computed from those.
        side: of these blocks in pixels.
    """

    value: Tensor
    weight: float
    at: Tensor | None = None
    means: Tensor | None = None
    side: int = 1

    def weighed(self, factor: float) -> "WeightedLoss":
        """The same with another factor before it."""
        return replace(self, weight=self.weight * factor)


class GradientLog:
    """How hard each part of the loss pulls in the first steps: the norm of its weighed gradient at the logits.

    A loss on features has no gradient at the logits; its pull is compared with the student loss's at these features.
    """

    steps = 5
    _unequal = 100.0

    def __init__(self) -> None:
        self.sizes: dict[str, list[float]] = {}

    def due(self, step: int) -> bool:
        """Whether this step is still looked at."""
        return step < self.steps

    def add(self, logits: Tensor, parts: Mapping[str, WeightedLoss]) -> None:
        """Look at one step; the graph is kept for the step's own backward pass."""
        reference = parts["student loss"]
        at_logits = _pull(reference, logits)
        for name, part in parts.items():
            if part is reference:
                size = at_logits
            elif part.at is not None:
                size = _pull(part, part.at) * at_logits / max(_pull(reference, part.at), 1e-30)
            elif part.means is not None:
                size = _pull(part, part.means) / part.side  # spread evenly over the block's side^2 pixels
            else:
                size = _pull(part, logits)
            self.sizes.setdefault(name, []).append(size)

    def means(self) -> dict[str, float]:
        """Mean over the first steps, of every part that pulls at all."""
        return {name: sum(sizes) / len(sizes) for name, sizes in self.sizes.items() if any(sizes)}

    def warning(self) -> str | None:
        """A sentence where one part pulls a hundred times as hard as another."""
        means = self.means()
        if not means:
            return None
        strong, weak = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        ratio = means[strong] / means[weak]
        if ratio < self._unequal:
            return None
        return (
            f"in the first steps the {strong} pulls {ratio:,.0f} times as hard as the {weak}, which will hardly be "
            "learnt from; weigh it in --distillation-loss (such as kl+0.1*fitnet), or change --alpha."
        )


def _pull(part: WeightedLoss, at: Tensor) -> float:
    """Norm of the gradient of a weighed part at a tensor."""
    if part.weight == 0 or not part.value.requires_grad:
        return 0.0
    (gradient,) = torch.autograd.grad(part.value, at, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else part.weight * float(torch.linalg.vector_norm(gradient, dtype=torch.float32))
