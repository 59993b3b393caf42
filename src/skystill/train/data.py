"""Batches for training: random views of the images, a pure function of (seed, epoch, step).

No loader state exists, so a resumed run draws exactly what the killed one would have drawn.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skystill.classes import ClassMap, Labels
from skystill.dataset import Pair, read_image, read_labels
from skystill.errors import SettingsError
from skystill.train.augment import draw_view, jitter_colors
from skystill.train.logit_cache import LogitCache

_HELD_BYTES = 4 * 2**30  # decoded images kept in memory; what is beyond is read from disk when it is drawn


@dataclass(frozen=True)
class Batch:
    """One step's food.

    Args:
        images: (N, 3, H, W) uint8, what the trained network sees (colours jittered).
        plain: (N, 3, H, W) uint8, the same view with the colours as they are, for the teacher.
        labels: (N, H, W) int64, 255 = void.
        inside: (N, H, W) bool, False on padding.
        teacher_logits: (N, C, H, W) float16 of the same view, where they come from a cache.
    """

    images: Tensor
    plain: Tensor
    labels: Tensor
    inside: Tensor
    teacher_logits: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        parts = (self.images, self.plain, self.labels, self.inside, self.teacher_logits)
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in parts))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.labels)


AnyBatch = Batch | tuple[Tensor, Tensor]
"""A batch, or (images, labels)."""


class Scenes:
    """Images with labels, decoded once and held while there is room.

    Args:
        pairs: what to read.
        classes: how to read the masks.
    """

    def __init__(self, pairs: Sequence[Pair], classes: ClassMap) -> None:
        self.pairs = tuple(pairs)
        self.classes = classes
        self._held: dict[int, tuple[npt.NDArray[np.uint8], Labels]] = {}
        self._held_bytes = 0
        self.sizes = [self[index][1].shape for index in range(len(self.pairs))]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], Labels]:
        """Image (H, W, 3) uint8 and labels (H, W) uint8."""
        if index in self._held:
            return self._held[index]
        pair = self.pairs[index]
        scene = (read_image(pair.image), read_labels(pair.mask, self.classes).labels)
        size = scene[0].nbytes + scene[1].nbytes
        if self._held_bytes + size <= _HELD_BYTES:
            self._held[index] = scene
            self._held_bytes += size
        return scene


class TrainBatches:
    """Endless random views of training images.

    An epoch draws as many pixels as the images have, unless told otherwise. Images are drawn by their area, so that
    every pixel is as likely as any other.

    Args:
        scenes: the training images.
        crop: side of the crops in pixels.
        batch_size: crops a step.
        seed: everything random comes from (seed, epoch, step).
        jitter: strength of the colour jitter, 0 for none.
        crops_per_image: crops an epoch draws for each image; None for as many as hold all pixels of the images.
        cache: the teacher's logits of these images; None where the teacher runs itself.
    """

    def __init__(
        self,
        scenes: Scenes,
        crop: int,
        batch_size: int,
        seed: int,
        jitter: float = 0.2,
        crops_per_image: int | None = None,
        cache: LogitCache | None = None,
    ) -> None:
        self.scenes = scenes
        self.crop = crop
        self.batch_size = batch_size
        self.seed = seed
        self.jitter = jitter
        self._logits = None if cache is None else [cache.open(pair.image) for pair in scenes.pairs]
        areas = np.array([height * width for height, width in scenes.sizes], float)
        self._weights = areas / areas.sum()
        crops = areas.sum() / crop**2 if crops_per_image is None else crops_per_image * len(areas)
        self.steps_per_epoch = max(1, round(crops / batch_size))

    def batch(self, epoch: int, step: int) -> Batch:
        """The batch of one step; the same for the same seed, epoch and step."""
        rng = np.random.default_rng((self.seed, epoch, step))
        drawn = [self._draw(rng) for _ in range(self.batch_size)]
        images, plain, labels, inside, *logits = (np.stack(part) for part in zip(*drawn, strict=True))
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),  # channels stay last in memory
            torch.from_numpy(plain).permute(0, 3, 1, 2),
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(inside),
            torch.from_numpy(logits[0]).permute(0, 3, 1, 2) if logits else None,
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `start` on, the next one made while the last is used."""
        steps = range(start, self.steps_per_epoch)
        with ThreadPoolExecutor(1) as maker:
            coming = maker.submit(self.batch, epoch, start) if steps else None
            for step in steps:
                assert coming is not None
                batch = coming.result()
                coming = maker.submit(self.batch, epoch, step + 1) if step + 1 < self.steps_per_epoch else None
                yield batch

    def _draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.generic], ...]:
        index = int(rng.choice(len(self.scenes), p=self._weights))
        image, labels = self.scenes[index]
        height, width = labels.shape
        view = draw_view(rng, height, width, self.crop)
        plain = view.of_image(image)
        seen = jitter_colors(rng, plain, self.jitter)
        parts = (seen, plain, view.of_labels(labels), view.inside(height, width))
        return parts if self._logits is None else (*parts, view.of_logits(self._logits[index]))


class LoaderBatches:
    """Any loader of (images, labels) as batches.

    Args:
        loader: has a length; images (N, 3, H, W), 0 to 255, labels (N, H, W) int64, 255 = void.

    Raises:
        SettingsError: it has no length.
    """

    def __init__(self, loader: Iterable[tuple[Tensor, Tensor]]) -> None:
        if not isinstance(loader, Sized):
            raise SettingsError("training batches need a length (steps an epoch): give a DataLoader or a list.")
        self._loader: Iterable[tuple[Tensor, Tensor]] = loader
        self.steps_per_epoch = len(loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The loader's batches from step `start` on."""
        for step, batch in enumerate(self._loader):
            if step >= start:
                yield as_batch(batch)


class WholeImages:
    """Whole images for validation, nothing left out, cut into tiles so that memory does not grow with the image.

    Args:
        scenes: the images.
        tile: side of the largest tile in pixels.
    """

    def __init__(self, scenes: Scenes, tile: int = 1024) -> None:
        self.scenes = scenes
        self.tile = tile

    def __iter__(self) -> Iterator[Batch]:
        for index in range(len(self.scenes)):
            image, labels = self.scenes[index]
            for top in range(0, labels.shape[0], self.tile):
                for left in range(0, labels.shape[1], self.tile):
                    here = np.s_[top : top + self.tile, left : left + self.tile]
                    images = torch.from_numpy(image[here].copy()).permute(2, 0, 1)[None]
                    yield as_batch((images, torch.from_numpy(labels[here].astype(np.int64))[None]))


def as_batch(batch: AnyBatch) -> Batch:
    """(images, labels) as a batch without padding and without colour jitter; a batch as it is."""
    if isinstance(batch, Batch):
        return batch
    images, labels = batch
    return Batch(images, images, labels, torch.ones_like(labels, dtype=torch.bool))
