"""`Teacher`: a frozen network whose answers are logits of the student's classes at the image's size, whatever it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import SettingsError

_SMALLEST = 1e-7  # a probability of 0 has no logarithm; below this a float16 teacher had rounded anyway


@dataclass(frozen=True)
class InputScale:
    """What a network wants its pixels to be: (pixel / divisor - mean) / std.

    Args:
        divisor: 255 for networks that take 0..1, 1 for those that take bytes.
        mean, std: of red, green and blue, after the division.
    """

    divisor: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


INPUT_SCALES = {
    "0..255": InputScale(),
    "0..1": InputScale(255.0),
    "imagenet": InputScale(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""By the name that a teacher's `input=` takes."""


class Teacher(nn.Module):
    """A network in eval mode without gradients.

    A network that ends in a softmax gives probabilities; their logarithms are logits (softmax of them gives the
    probabilities back). Which it is shows on the first images: probabilities are nowhere negative and sum to one.
    Answers at a part of the image's resolution are resized.

    Args:
        network: images (N, 3, H, W) to logits or probabilities (N, C, h, w), as they are or in a dictionary ("out" or
            "logits"), an object with `logits`, or a tuple's first.
        scale: what pixels the network wants.
        multiple: the network's H and W must divide by this; grey is added below and right, and cut off again.
        channels: which of the network's classes to give, in which order; None for all as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: InputScale = INPUT_SCALES["0..255"],
        multiple: int = 1,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.multiple = multiple
        self.channels = None if channels is None else list(channels)
        self.plain = scale == InputScale()
        self.divisor = scale.divisor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(scale.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(scale.std)[:, None, None], persistent=False)
        self._probabilities: bool | None = None
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode whatever is asked: a teacher's BatchNorm must not learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), 0 to 255, to logits (N, C, H, W) float."""
        height, width = images.shape[2:]
        if self.multiple > 1:
            images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple), value=128)
        padded = images.shape[2:]
        if not self.plain:
            images = (images.float() / self.divisor - self.mean) / self.std
        outputs = _tensor(self.network(images))
        if self._probabilities is None:
            self._probabilities = are_probabilities(outputs)
        logits = outputs.float().clamp(min=_SMALLEST).log() if self._probabilities else outputs
        if logits.shape[2:] != padded:
            logits = F.interpolate(logits.float(), size=padded, mode="bilinear", align_corners=False)
        logits = logits[:, :, :height, :width]
        return logits if self.channels is None else logits[:, self.channels]


def _tensor(outputs: object) -> Tensor:
    """The logits among what a network gave.

    Raises:
        SettingsError: there are none.
    """
    if isinstance(outputs, dict):
        outputs = outputs.get("out", outputs.get("logits"))
    elif isinstance(outputs, tuple | list):
        outputs = outputs[0]
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor) or outputs.ndim != 4:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise SettingsError(f"the teacher gives {shape}; a segmentation network gives (N, classes, H, W).")
    return outputs


def are_probabilities(outputs: Tensor) -> bool:
    """Whether (N, C, H, W) is nowhere negative and sums to one over classes, to half-precision accuracy."""
    values = outputs.float()
    return bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-2).all())


def combine(logits: Sequence[Tensor], weights: Sequence[float], temperature: float) -> Tensor:
    """One answer of several teachers: softmax(result / T) is the weighted mean of their softened probabilities.

    Args:
        logits: of each teacher, (N, C, H, W).
        weights: a weight each; only their ratios matter.
        temperature: T > 0, at which the answer will be softened.
    """
    if len(logits) == 1:
        return logits[0]
    total = sum(weights)
    mean = sum(
        weight / total * (one.float() / temperature).softmax(dim=1) for weight, one in zip(weights, logits, strict=True)
    )
    assert isinstance(mean, Tensor)
    return mean.clamp(min=torch.finfo(torch.float32).tiny).log() * temperature
