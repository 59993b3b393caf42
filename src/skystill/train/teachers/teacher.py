"""`Teacher`: wraps any segmentation network so that it gives logits of the wanted classes at the size of the image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import SettingsError, TeacherNotFinite
from skystill.model.adapters import INPUT_SCALES, SMALLEST, SMALLEST_INDEPENDENT, TOLERANCE, Answer, InputScale
from skystill.raster.input_spec import InputSpec


class Teacher(nn.Module):
    """A frozen network: it is in eval mode, and no gradients are computed.

    A network that ends in a softmax gives probabilities. Their logarithms are used as logits, because the softmax of
    these logarithms gives the probabilities back. One that ends in a sigmoid gives a probability p for each class by
    itself, and log(p / (1 - p)) is used. The first images decide what the outputs are (`answer_of`), unless it is said.
    Outputs at another resolution than the input are resized.

    Args:
        network: images (N, B, H, W) to logits or probabilities (N, C, h, w). The output may be this tensor, a
            dictionary with the key "out" or "logits", an object with the attribute `logits`, or a tuple or list whose
            first item is the tensor.
        scale: the scale of the pixels that the network expects.
        multiple: H and W of the network's input must be divisible by this. Grey is added below and on the right, and
            this part of the output is cut off.
        channels: indices of the network's classes to return, in this order. None returns all of them.
        input_spec: what the network is fed. None if it is fed what the student is fed.

    Attributes:
        answer: what the outputs are. None until it is known.
        binary: whether the one channel of the outputs is that of the second of two classes. The logit of the first is
            then 0, as in `skystill predict`.
        name: the teacher's name for messages.
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
        self.answer: Answer | None = None
        self.binary = False
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
            SettingsError: the network's output holds no tensor with 4 axes, or is something else than on the first
                images.
        """
        height, width = images.shape[2:]
        outputs = self.outputs(images)
        if self.answer is None:
            self.answer = answer_of(outputs)
        logits = self._logits(outputs)
        padded = [side + -side % self.multiple for side in (height, width)]
        if list(logits.shape[2:]) != padded:
            logits = F.interpolate(logits.float(), size=padded, mode="bilinear", align_corners=False)
        logits = logits[:, :, :height, :width]
        if self.binary:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits if self.channels is None else logits[:, self.channels]

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Tensor:
        """Compute what the network gives for images (N, B, H, W), as it is: (N, C, h, w). Raises as `forward`."""
        images = self._padded(images)
        if not self._takes_bytes:
            images = (images.float() / self.divisor - self.mean) / self.std
        return _tensor(self.network(images))

    def _logits(self, outputs: Tensor) -> Tensor:
        if self.answer == "logits":
            return outputs
        if answer_of(outputs) == "logits":
            raise SettingsError(
                f"the teacher {self.name} gave probabilities for the first images, and now gives "
                f"{outputs.min():g} to {outputs.max():g}. Export it again with logits as its output."
            )
        values = outputs.float()
        if self.answer == "probabilities":
            return values.clamp(min=SMALLEST).log()
        return values.clamp(min=SMALLEST_INDEPENDENT).log() - (1 - values).clamp(min=SMALLEST_INDEPENDENT).log()

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


def answer_of(outputs: Tensor) -> Answer:
    """Recognise what outputs (N, C, h, w) are, by their values, as `what_is_answered` does for a model file.

    Values from 0 to 1 are probabilities if they sum to one over classes, and otherwise those of each class by itself.
    A sum or a value may differ by less than 0.01, so that outputs in half precision pass.
    """
    values = outputs.float()
    if not (bool((values >= 0).all()) and bool((values <= 1 + TOLERANCE).all())):
        return "logits"
    one = values.shape[1] > 1 and bool(((values.sum(dim=1) - 1).abs() < TOLERANCE).all())
    return "probabilities" if one else "independent"


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
