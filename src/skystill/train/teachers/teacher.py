"""`Teacher`: wraps any segmentation network so that it gives logits of the wanted classes at the size of the image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import SettingsError, TeacherNotFinite
from skystill.model.adapters import INPUT_SCALES, InputScale
from skystill.raster.input_spec import InputSpec

_SMALLEST = 1e-7  # the logarithm of 0 is not finite; float16 rounds smaller probabilities anyway


class Teacher(nn.Module):
    """A frozen network: it is in eval mode, and no gradients are computed.

    A network that ends in a softmax gives probabilities. Their logarithms are used as logits, because the softmax of
    these logarithms gives the probabilities back. The first images decide whether the outputs are probabilities: these
    are nowhere negative and sum to one over classes. Outputs at another resolution than the input are resized.

    Args:
        network: images (N, B, H, W) to logits or probabilities (N, C, h, w). The output may be this tensor, a
            dictionary with the key "out" or "logits", an object with the attribute `logits`, or a tuple or list whose
            first item is the tensor.
        scale: the scale of the pixels that the network expects.
        multiple: H and W of the network's input must be divisible by this. Grey is added below and on the right, and
            this part of the output is cut off.
        channels: indices of the network's classes to return, in this order. None returns all of them.
        input_spec: what the network is fed. None if it is fed what the student is fed.

    The attribute `name` is the teacher's name for messages.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: InputScale = INPUT_SCALES["0..255"],
        multiple: int = 1,
        channels: Sequence[int] | None = None,
        input_spec: InputSpec | None = None,
    ) -> None:
        super().__init__()
        self._input_spec = input_spec
        self.network = network.requires_grad_(False)
        self.multiple = multiple
        self.channels = None if channels is None else list(channels)
        self._takes_bytes = scale == InputScale()
        self.divisor = scale.divisor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(scale.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(scale.std)[:, None, None], persistent=False)
        self._probabilities: bool | None = None
        self.name = type(network).__name__
        self.eval()

    @property
    def input_spec(self) -> InputSpec | None:
        """What the network is fed. None if it is fed what the student is fed."""
        return self._input_spec

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever `mode` is: the statistics of a teacher's BatchNorm must not change."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of images.

        Args:
            images: (N, B, H, W), the bands of its spec.

        Returns:
            (N, C, H, W) float.

        Raises:
            SettingsError: the network's output holds no tensor with 4 axes.
        """
        height, width = images.shape[2:]
        images = self._padded(images)
        padded = images.shape[2:]
        if not self._takes_bytes:
            images = (images.float() / self.divisor - self.mean) / self.std
        outputs = _tensor(self.network(images))
        if self._probabilities is None:
            self._probabilities = are_probabilities(outputs)
        logits = outputs.float().clamp(min=_SMALLEST).log() if self._probabilities else outputs
        if logits.shape[2:] != padded:
            logits = F.interpolate(logits.float(), size=padded, mode="bilinear", align_corners=False)
        logits = logits[:, :, :height, :width]
        return logits if self.channels is None else logits[:, self.channels]

    def _padded(self, images: Tensor) -> Tensor:
        """Add rows and columns until H and W are divisible by `multiple`: grey, or for values the fill of the spec."""
        height, width = images.shape[2:]
        below, right = -height % self.multiple, -width % self.multiple
        if not (below or right):
            return images
        if self._input_spec is None or self._input_spec.is_three_bytes:
            return F.pad(images, (0, right, 0, below), value=128)
        padded = F.pad(images.float(), (0, right, 0, below))
        fill = torch.from_numpy(self._input_spec.fill.astype("float32")).to(images.device)[:, None, None]
        padded[:, :, height:] = fill
        padded[:, :, :, width:] = fill
        return padded


def _tensor(outputs: object) -> Tensor:
    """Extract the tensor of logits or probabilities from the output of a network.

    Raises:
        SettingsError: the output holds no tensor with 4 axes.
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
    """Return True if outputs (N, C, H, W) are nowhere negative and sum to one over classes.

    The sum may differ from one by less than 0.01, so that outputs in half precision pass.
    """
    values = outputs.float()
    return bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-2).all())


def check_finite(logits: Tensor, teacher: str, where: str) -> None:
    """Refuse logits that are not finite: the loss would be NaN, and the message about it would name the wrong cause.

    Args:
        logits: (N, C, H, W) float.
        teacher: name of the teacher, for the message.
        where: the image, for the message.

    Raises:
        TeacherNotFinite: a logit is NaN or infinite. The message names the teacher and the classes.
    """
    finite = logits.isfinite().all(dim=3).all(dim=2).all(dim=0)
    if not finite.all():
        raise TeacherNotFinite(teacher, [str(label) for label, well in enumerate(finite.tolist()) if not well], where)


def combine(logits: Sequence[Tensor], weights: Sequence[float], temperature: float) -> Tensor:
    """Combine the logits of several teachers into one tensor of logits.

    softmax(result / T) is the weighted mean of the teachers' softened probabilities softmax(logits / T).

    Args:
        logits: one tensor (N, C, H, W) float for each teacher.
        weights: one weight for each teacher. Only their ratios matter.
        temperature: T > 0, the temperature of the distillation loss that softens the result.

    Returns:
        (N, C, H, W). The logits of a single teacher are returned as they are.
    """
    if len(logits) == 1:
        return logits[0]
    total = sum(weights)
    mean = sum(
        weight / total * (one.float() / temperature).softmax(dim=1) for weight, one in zip(weights, logits, strict=True)
    )
    assert isinstance(mean, Tensor)
    return mean.clamp(min=torch.finfo(torch.float32).tiny).log() * temperature
