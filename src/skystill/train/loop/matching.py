"""`FeatureMatching`: trains a student to have the features of a teacher. It needs no labels and no common classes."""

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.train.batches.batches import Batch
from skystill.train.loop.ranks import gather_ranks
from skystill.train.loop.supervised import Supervised, batch_of_all
from skystill.train.losses.on_features import PKD
from skystill.train.networks.blocks import Normalize, to_memory_format
from skystill.train.networks.examples import input_spec_of, noise_images
from skystill.train.networks.levels import Leveled

_SIDE = 64  # pixels of the image that shows the resolution of each level


class FeatureMatching(Supervised):
    """Trains a student to have the features of a teacher at each common resolution, and before the head.

        loss = mean over pairs of layers of PKD(student's features, teacher's features)

    A trainable 1x1 convolution maps the student's channels to the teacher's (Romero 2015, arXiv 1412.6550). Features
    are standardised channel by channel, so that there is no scale to tune (Cao 2022, arXiv 2207.02039). Both networks
    see the same pixels with the same colour jitter (Beyer 2022, arXiv 2106.05237).

    Args:
        student: a network of the table. Its weights are trained, but for those of the head.
        teacher: a network of the table, which is fed the same. It stays in eval mode and gets no gradients.
        has_decoder: whether the teacher's decoder was trained. If so, what comes before the heads is matched, too;
            otherwise only the teacher's encoder runs.
        fabric: devices and precision. By default, the best device of this machine, in float32.

    Raises:
        SettingsError: no level of both networks has the same resolution.
    """

    def __init__(self, student: Leveled, teacher: Leveled, has_decoder: bool, fabric: Fabric | None = None) -> None:
        super().__init__(student, fabric)
        self.teacher = teacher.eval().requires_grad_(False)
        self.has_decoder = has_decoder
        layers = (_Layers(student, has_decoder), _Layers(teacher, has_decoder))
        self._student_layers, self._teacher_layers = layers
        images = noise_images(input_spec_of(student), 1, _SIDE, _SIDE)
        with torch.no_grad():
            student.eval()(images)
            self._run_teacher(images)
        shown, wanted = (one.take() for one in layers)
        by_size = {features.shape[-1]: place for place, features in enumerate(wanted[: len(teacher.levels)])}
        self._pairs = [
            (place, by_size[features.shape[-1]])
            for place, features in enumerate(shown[: len(student.levels)])
            if features.shape[-1] in by_size
        ]
        if not self._pairs:
            raise SettingsError("no level of the student has the resolution of a level of the teacher; take another.")
        if has_decoder:
            self._pairs.append((len(shown) - 1, len(wanted) - 1))
        self.loss = nn.ModuleList(PKD(shown[own].shape[1], wanted[other].shape[1]) for own, other in self._pairs)
        for part in (self.teacher, self.loss):
            self.fabric.to_device(to_memory_format(part, torch.channels_last))

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the optimiser over the weights of the student. The maps between the channels learn beside them."""
        self.compile(optimizer, metrics={})
        self.stepper.learn_beside(self.loss)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Batch]:
        """Compute the loss of a batch.

        Returns:
            "loss"; the logits (N, C, H, W) of all ranks, which nothing compares; and the batch of all ranks.
        """
        with torch.no_grad(), self.fabric.autocast():
            self._run_teacher(batch.images)
        logits = gather_ranks(self.fabric, self.stepper.forward(batch.images))
        ours, theirs = self._student_layers.take(), self._teacher_layers.take()
        batch = batch_of_all(self.fabric, batch)
        values = [
            loss(
                gather_ranks(self.fabric, ours[own]),
                gather_ranks(self.fabric, theirs[other]),
                batch.labels,
                batch.valid,
            )
            for loss, (own, other) in zip(self.loss, self._pairs, strict=True)
        ]
        return {"loss": torch.stack(values).mean()}, logits, batch

    def _run_teacher(self, images: Tensor) -> None:
        if self.has_decoder:
            self.teacher(images)
            return
        normalize, stride = self.teacher.normalize, self.teacher.stride
        assert isinstance(normalize, Normalize), "the contract of networks"
        features = normalize(images, self.teacher.multiple, stride)
        for level in self.teacher.levels:
            features = level(features)


class _Layers:
    """Keeps the outputs of the levels of a network from its last forward pass, and the input of its head.

    Args:
        network: the network.
        with_head: whether the input of the head is kept.
    """

    def __init__(self, network: Leveled, with_head: bool) -> None:
        self._kept: dict[int, Tensor] = {}
        for place, level in enumerate(network.levels):
            level.register_forward_hook(lambda module, given, made, place=place: self._keep(place, made))
        if with_head:
            last = len(network.levels)
            network.get_submodule("head").register_forward_pre_hook(lambda module, given: self._keep(last, given[0]))

    def _keep(self, place: int, features: Tensor) -> None:
        self._kept[place] = features

    def take(self) -> list[Tensor]:
        """Return what was kept, each (N, C, h, w), and release it."""
        kept, self._kept = self._kept, {}
        return [kept[place] for place in sorted(kept)]
