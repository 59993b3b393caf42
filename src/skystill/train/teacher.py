"""`Teacher`: a frozen network whose outputs are logits, whatever it ends in. So far it comes from a SkyStill run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skystill.classes import ClassMap, classes_from
from skystill.errors import ClassCountMismatch, ClassOrderMismatch
from skystill.run_folder import RunFolder
from skystill.train.models import read_about, read_network

_SMALLEST = 1e-7  # a probability of 0 has no logarithm; below this a float16 teacher had rounded anyway


class Teacher(nn.Module):
    """A network in eval mode without gradients.

    A network that ends in a softmax gives probabilities; their logarithms are logits (softmax of them gives the
    probabilities back). Which it is shows on the first images: probabilities are nowhere negative and sum to one.

    Args:
        network: images (N, 3, H, W) to logits or probabilities (N, C, H, W).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._probabilities: bool | None = None
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode whatever is asked: a teacher's BatchNorm must not learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), 0 to 255, to logits (N, C, H, W) float."""
        outputs: Tensor = self.network(images)
        if self._probabilities is None:
            self._probabilities = are_probabilities(outputs)
        return outputs.float().clamp(min=_SMALLEST).log() if self._probabilities else outputs


def are_probabilities(outputs: Tensor) -> bool:
    """Whether (N, C, H, W) is nowhere negative and sums to one over classes, to half-precision accuracy."""
    values = outputs.float()
    return bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-2).all())


def load_teacher(run: Path, classes: ClassMap) -> tuple[Teacher, dict[str, Any]]:
    """The teacher of a SkyStill run, and what its weights file says of it.

    Args:
        run: a folder that `skystill train` (or `distill`) made.
        classes: the data's classes, which must be the teacher's.

    Raises:
        RunFolderError: no run there.
        CheckpointError: its weights are missing or damaged.
        ClassCountMismatch, ClassOrderMismatch: it was trained on other classes.
    """
    RunFolder(run).read_config()
    network, about = read_network(RunFolder(run).weights)
    _compare(run, about, classes)
    return Teacher(network), about


def check_classes(run: Path, classes: ClassMap) -> None:
    """Check that a teacher's classes are the data's, without loading its weights.

    Raises:
        as `load_teacher`.
    """
    RunFolder(run).read_config()
    _compare(run, read_about(RunFolder(run).weights), classes)


def _compare(run: Path, about: dict[str, Any], classes: ClassMap) -> None:
    found = classes_from(about["classes"], str(run))
    if len(found) != len(classes):
        raise ClassCountMismatch(run, found.names, classes.names)
    if found.names != classes.names:
        raise ClassOrderMismatch(run, found.names, classes.names)
