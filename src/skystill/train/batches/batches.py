"""Batches for training: random sampler of the images, a pure function of (seed, epoch, step).

No loader state exists, so a resumed run draws exactly what the killed one would have drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skystill.classes import VOID, ClassMap, Labels
from skystill.data import Pair, read_image, read_labels
from skystill.data.unlabeled import ImageWindow, all_valid, whole_images
from skystill.errors import SettingsError
from skystill.train.batches.augment import draw_augmentation, jitter_colors
from skystill.train.teachers.logit_cache import LogitCache, StoredLogits

_HELD_BYTES = 4 * 2**30  # decoded images kept in memory; what is beyond is read from disk when it is drawn


@dataclass(frozen=True)
class Batch:
    """One step's food.

    Args:
        images: (N, 3, H, W) uint8, what the trained network sees (colours jittered).
        plain: (N, 3, H, W) uint8, the same view with the colours as they are, for the teacher.
        labels: (N, H, W) int64, 255 = void.
        inside: (N, H, W) bool, False on padding and nodata.
        taught: (N, H, W) bool, where the teacher is asked: not on padding, nor on the void of an image with labels.
        teacher_logits: from each teacher, where they come from a cache.
    """

    images: Tensor
    plain: Tensor
    labels: Tensor
    inside: Tensor
    taught: Tensor
    teacher_logits: tuple[StoredLogits, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        images, plain, labels, inside, taught = (
            part.to(device, non_blocking=True)
            for part in (self.images, self.plain, self.labels, self.inside, self.taught)
        )
        return Batch(images, plain, labels, inside, taught, tuple(one.to(device) for one in self.teacher_logits))

    def __len__(self) -> int:
        return len(self.labels)


AnyBatch = Batch | tuple[Tensor, Tensor]
"""A batch, or (images, labels)."""


@dataclass(frozen=True)
class TrainingImage:
    """An image and what is known of it.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8, 255 = void; all void where there is no mask.
        valid: (H, W) bool, False where a raster has no data.
        labeled: whether there is a mask.
    """

    image: npt.NDArray[np.uint8]
    labels: Labels
    valid: npt.NDArray[np.bool_]
    labeled: bool

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.image.nbytes + self.labels.nbytes + self.valid.nbytes


class TrainingImages:
    """Images, decoded once and held while there is room.

    Args:
        image_windows: what to read.
        read: how.
    """

    def __init__(self, image_windows: Sequence[ImageWindow], read: Callable[[int], TrainingImage]) -> None:
        self.image_windows = tuple(image_windows)
        self._read = read
        self._held: dict[int, TrainingImage] = {}
        self._held_bytes = 0
        self.sizes = [self[index].labels.shape for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.image_windows)

    def __getitem__(self, index: int) -> TrainingImage:
        """The image, from memory or from disk."""
        if index in self._held:
            return self._held[index]
        image = self._read(index)
        if self._held_bytes + image.nbytes <= _HELD_BYTES:
            self._held[index] = image
            self._held_bytes += image.nbytes
        return image


def labeled_images(pairs: Sequence[Pair], classes: ClassMap) -> TrainingImages:
    """Images with masks."""

    def read(index: int) -> TrainingImage:
        image = read_image(pairs[index].image)
        labels = read_labels(pairs[index].mask, classes).labels
        return TrainingImage(image, labels, all_valid(*labels.shape), True)

    return TrainingImages(whole_images(pairs), read)


def unlabeled_images(image_windows: Sequence[ImageWindow]) -> TrainingImages:
    """Images without masks: every label is void."""

    def read(index: int) -> TrainingImage:
        image, valid = image_windows[index].read()
        return TrainingImage(image, np.full(valid.shape, VOID, np.uint8), valid, False)

    return TrainingImages(image_windows, read)


class CropSampler:
    """Random sampler of images. Images are drawn by their area, so that every pixel is as likely as any other.

    Args:
        images: the images.
        crop: side of the crops in pixels.
        jitter: strength of the colour jitter, 0 for none.
        caches: logits of these images, one cache a teacher.
        zoom: how much larger or smaller than the crop its piece of the image may be, 0 for no scaling.
        stride: crops begin and end between blocks of stride x stride pixels, of which the caches hold the logits.
    """

    def __init__(
        self,
        images: TrainingImages,
        crop: int,
        jitter: float,
        caches: Sequence[LogitCache],
        zoom: float = 0.0,
        stride: int = 1,
    ) -> None:
        self.images, self.crop, self.jitter, self.zoom, self.stride = images, crop, jitter, zoom, stride
        self._logits = [[cache.open(image_window) for image_window in images.image_windows] for cache in caches]
        areas = np.array([height * width for height, width in images.sizes], float)
        self.pixels = areas.sum()
        self._weights = areas / self.pixels

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[Any], ...]:
        """Seen, plain, labels, inside, taught of one view, and what `StoredLogits` needs of each teacher."""
        index = int(rng.choice(len(self.images), p=self._weights))
        image = self.images[index]
        height, width = image.labels.shape
        augmentation = draw_augmentation(rng, height, width, self.crop, self.zoom, self.stride)
        plain = augmentation.apply_to_image(image.image)
        labels = augmentation.apply_to_labels(image.labels)
        inside = augmentation.apply_to_mask(image.valid)
        taught = inside & (labels != VOID) if image.labeled else inside
        files = [teacher[index] for teacher in self._logits]
        logits = [
            part for file in files for part in (augmentation.apply_to_logits(file, self.stride), file.step, file.low)
        ]
        return jitter_colors(rng, plain, self.jitter), plain, labels, inside, taught, *logits


@dataclass(frozen=True)
class UnlabeledCrops:
    """Images without masks, beside the labelled ones.

    Args:
        sampler: draws crops of them.
        fraction: of each batch that is unlabelled, 0 to 1; over several steps where it does not divide.
    """

    sampler: CropSampler
    fraction: float


class TrainBatches:
    """Endless random crops of training images.

    An epoch draws as many pixels as the labelled images have, unless `crops_per_image` is given. With unlabelled images
    beside them it has the same number of steps.

    Args:
        sampler: draws crops of the labelled images.
        batch_size: crops per step, those of all ranks together.
        seed: everything random comes from (seed, epoch, step, place in the batch).
        crops_per_image: crops an epoch draws for each image; None for as many as hold all pixels of the images.
        unlabeled: images without masks.
        rank_of: this rank and the number of ranks: which part of each batch is made here.
        ahead: make the next batch while the last is used, for a GPU. On a CPU its thread takes from the threads of the
            step, which wait for each other, more than it saves (docs/log.md).

    Raises:
        SettingsError: the ranks cannot divide a batch evenly.
    """

    def __init__(
        self,
        sampler: CropSampler,
        batch_size: int,
        seed: int,
        crops_per_image: int | None = None,
        unlabeled: UnlabeledCrops | None = None,
        rank_of: tuple[int, int] = (0, 1),
        ahead: bool = False,
    ) -> None:
        rank, ranks = rank_of
        if batch_size % ranks:
            raise SettingsError(f"--batch-size {batch_size} cannot be shared by {ranks} ranks; make it a multiple.")
        self.sampler, self.batch_size, self.seed, self.ahead = sampler, batch_size, seed, ahead
        self.unlabeled = unlabeled
        part = batch_size // ranks
        self._places = range(rank * part, (rank + 1) * part)
        crops = sampler.pixels / sampler.crop**2 if crops_per_image is None else crops_per_image * len(sampler.images)
        self.steps_per_epoch = max(1, round(crops / batch_size))

    def batch(self, epoch: int, step: int) -> Batch:
        """The batch of one step; the same for the same seed, epoch and step."""
        drawn = [self._draw(epoch, step, place) for place in self._places]
        images, plain, labels, inside, taught, *logits = (np.stack(part) for part in zip(*drawn, strict=True))
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),  # channels stay last in memory
            torch.from_numpy(plain).permute(0, 3, 1, 2),
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(inside),
            torch.from_numpy(taught),
            tuple(_stored(*logits[start : start + 3]) for start in range(0, len(logits), 3)),
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `start` on."""
        steps = range(start, self.steps_per_epoch)
        if not self.ahead:
            yield from (self.batch(epoch, step) for step in steps)
            return
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as maker:
            coming = maker.submit(self.batch, epoch, start) if steps else None
            for step in steps:
                assert coming is not None
                batch = coming.result()
                coming = maker.submit(self.batch, epoch, step + 1) if step + 1 < self.steps_per_epoch else None
                yield batch

    def _draw(self, epoch: int, step: int, place: int) -> tuple[npt.NDArray[Any], ...]:
        rng = np.random.default_rng((self.seed, epoch, step, place))
        return self._sampler_at(step * self.batch_size + place).draw(rng)

    def _sampler_at(self, number: int) -> CropSampler:
        """Unlabelled images take their fraction of the crops, evenly spread over the places of an epoch."""
        if self.unlabeled is None:
            return self.sampler
        fraction = self.unlabeled.fraction
        is_unlabeled = int((number + 1) * fraction) > int(number * fraction)
        return self.unlabeled.sampler if is_unlabeled else self.sampler


def _stored(values: npt.NDArray[Any], step: npt.NDArray[Any], low: npt.NDArray[Any]) -> StoredLogits:
    """Values (N, h, w, C), step and low (N, C)."""
    return StoredLogits(
        torch.from_numpy(values).permute(0, 3, 1, 2), *(torch.from_numpy(one)[..., None, None] for one in (step, low))
    )


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
        images: the images.
        tile: side of the largest tile in pixels.
        rank, ranks: which part of the images is given here.
    """

    def __init__(self, images: TrainingImages, tile: int = 1024, rank: int = 0, ranks: int = 1) -> None:
        self.images = images
        self.tile = tile
        self._own = range(rank, len(images), ranks)

    def __iter__(self) -> Iterator[Batch]:
        for index in self._own:
            image, labels = self.images[index].image, self.images[index].labels
            for top in range(0, labels.shape[0], self.tile):
                for left in range(0, labels.shape[1], self.tile):
                    here = np.s_[top : top + self.tile, left : left + self.tile]
                    images = torch.from_numpy(image[here].copy()).permute(2, 0, 1)[None]
                    yield as_batch((images, torch.from_numpy(labels[here].astype(np.int64))[None]))


def as_batch(batch: AnyBatch) -> Batch:
    """(images, labels) as a batch without padding and without colour jitter; a batch as it is.

    The teacher is not asked about void. For images without labels give a `Batch` that says where it is.
    """
    if isinstance(batch, Batch):
        return batch
    images, labels = batch
    return Batch(images, images, labels, torch.ones_like(labels, dtype=torch.bool), labels != VOID)
