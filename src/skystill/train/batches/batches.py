"""Training batches: random crops of the images, as a pure function of (seed, epoch, step).

A loader has no state. A resumed run therefore draws exactly the crops that the killed run would have drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skystill.classes import VOID
from skystill.errors import DataError, SettingsError
from skystill.raster.input_spec import InputSpec
from skystill.train.batches.augment import draw_augmentation, jitter_colors, jitter_values
from skystill.train.batches.images import Indices, TrainingImages
from skystill.train.teachers.logit_cache import LogitCache, StoredLogits

_MAP_TILE = 512
_REUSED = 2  # crops of each window of a map in an epoch, from which on it is read as a whole


@dataclass(frozen=True)
class Batch:
    """The tensors of one training step.

    Args:
        images: (N, B, H, W) in the data type of the trained network's spec, its input, with jitter.
        teacher_images: (N, B, H, W), the same crops without jitter, the input of teachers.
        labels: (N, H, W) int64, 255 = void.
        valid: (N, H, W) bool, False on padding and nodata.
        distill_valid: (N, H, W) bool, True where the teacher's logits are used. It is False on padding and nodata,
            and on void pixels of images with labels.
        teacher_logits: cached logits, one entry for each teacher. Empty if they do not come from a cache.
        read_otherwise: `teacher_images` as they are read for teachers that are fed otherwise than the trained network,
            by `InputSpec.reading`.
        second_labels: (N, H, W) int64, 255 = void, of the crops that mixup added to these. None without mixup.
        first_weight: of the crops whose labels are `labels`; that of the added ones is 1 minus it.
    """

    images: Tensor
    teacher_images: Tensor
    labels: Tensor
    valid: Tensor
    distill_valid: Tensor
    teacher_logits: tuple[StoredLogits, ...] = ()
    read_otherwise: Mapping[str, Tensor] = field(default_factory=dict)
    second_labels: Tensor | None = None
    first_weight: float = 1.0

    @property
    def common_labels(self) -> Tensor:
        """The labels on which the crops agree that were averaged, void elsewhere. Without mixup they are `labels`."""
        return self.labels if self.second_labels is None else self.labels.where(self.labels == self.second_labels, VOID)

    def fed_to(self, input_spec: InputSpec | None) -> Tensor:
        """Return the images for a teacher: (N, B, H, W) as its spec says, or `teacher_images` for None."""
        reading = None if input_spec is None else input_spec.reading
        return self.teacher_images if reading is None else self.read_otherwise.get(reading, self.teacher_images)

    def to(self, device: torch.device) -> "Batch":
        """Return a copy of the batch on another device."""
        images, teacher_images, labels, valid, distill_valid = (
            part.to(device, non_blocking=True)
            for part in (self.images, self.teacher_images, self.labels, self.valid, self.distill_valid)
        )
        return Batch(
            images,
            teacher_images,
            labels,
            valid,
            distill_valid,
            tuple(one.to(device) for one in self.teacher_logits),
            {reading: part.to(device, non_blocking=True) for reading, part in self.read_otherwise.items()},
            None if self.second_labels is None else self.second_labels.to(device, non_blocking=True),
            self.first_weight,
        )

    def __len__(self) -> int:
        return len(self.labels)


Mix = Callable[[Batch, tuple[int, int, int], Sequence[int]], Batch]
"""A function of a batch, its seed, epoch and step, and the places of its crops: `skystill.train.batches.mixing`."""

AnyBatch = Batch | tuple[Tensor, Tensor]
"""A `Batch`, or a tuple (images, labels) as `as_batch` accepts it."""


class CropSampler:
    """A sampler of random crops of images.

    The probability of an image is proportional to its area, so that each pixel is equally likely.

    Args:
        images: the images.
        crop: side of the crops in pixels.
        jitter: strength of the colour jitter. 0 means no jitter.
        caches: caches with the logits of all these images, one for each teacher.
        zoom: the part of the image that becomes a crop has a side up to (1 + zoom) times larger or smaller than `crop`.
            0 means no scaling.
        stride: crops begin and end at borders of blocks of stride x stride pixels. The caches hold one logit per class
            for each such block.

    Raises:
        DataError: a cache has no file for an image, or the file is damaged.
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

    def draw(self, rng: np.random.Generator, among: Indices | None = None) -> tuple[npt.NDArray[Any], ...]:
        """Draw one crop, with its augmentation and its jitter.

        Args:
            rng: the random generator.
            among: the images to draw from, which are kept in memory; None for all.

        Returns:
            The arrays of one sample, channels last: images, teacher_images, labels, valid and distill_valid, as in
            `Batch`. The crop as it is read by each of the other specs follows. Then, for each teacher with a cache,
            values, step and low follow, as in `StoredLogits`.
        """
        if among is None:
            index = int(rng.choice(len(self.images), p=self._weights))
        else:
            index = int(rng.choice(among, p=self._weights[among] / self._weights[among].sum()))
        height, width = self.images.sizes[index]
        drawn = draw_augmentation(rng, height, width, self.crop, self.zoom, self.stride)
        image, augmentation = self.images.part(index, drawn) if among is None else (self.images.take(index), drawn)
        input_spec = self.images.input_spec
        teacher_images = augmentation.apply_to_image(image.image, _padding(input_spec))
        labels = augmentation.apply_to_labels(image.labels)
        valid = augmentation.apply_to_valid(image.valid)
        distill_valid = valid & (labels != VOID) if image.labeled else valid
        if image.others_valid is not None:
            distill_valid = distill_valid & augmentation.apply_to_valid(image.others_valid)
        others = [
            augmentation.apply_to_image(other, _padding(other_spec))
            for other, other_spec in zip(image.others, self.images.others, strict=True)
        ]
        files = [teacher[index] for teacher in self._logits]
        logits = [part for file in files for part in (drawn.apply_to_logits(file, self.stride), file.step, file.low)]
        if input_spec.is_colors:
            jittered = jitter_colors(rng, teacher_images, self.jitter, input_spec)
        else:
            jittered = jitter_values(rng, teacher_images, self.jitter, input_spec)
            if jittered is not teacher_images:
                jittered[~valid] = input_spec.fill  # as in prediction
        return jittered, teacher_images, labels, valid, distill_valid, *others, *logits


def _padding(input_spec: InputSpec) -> npt.ArrayLike:
    return 0 if input_spec.is_colors else input_spec.fill


@dataclass(frozen=True)
class UnlabeledCrops:
    """Crops of images without masks that are mixed into the batches.

    Args:
        sampler: draws the crops.
        fraction: fraction of unlabelled crops, 0 to 1. If a batch does not contain it as a whole number of crops, it is
            kept on average over several steps.
    """

    sampler: CropSampler
    fraction: float


class TrainBatches:
    """Batches of random crops, for any number of epochs.

    An epoch draws about as many pixels as the labelled images have, unless `crops_per_image` is given. Unlabelled
    images do not change the number of steps.

    Args:
        sampler: draws crops of the labelled images.
        batch_size: crops per step, summed over all ranks.
        seed: all randomness depends on (seed, epoch, step, place in the batch) alone.
        crops_per_image: average number of crops per labelled image and epoch. By default (None) the crops of an epoch
            have as many pixels as the images.
        unlabeled: crops of images without masks to mix in, or None.
        rank_of: the index of this rank and the number of ranks. They decide which part of each batch is made here.
        ahead: True to make the next batch in a thread while the current one is used. This is meant for a GPU. On a CPU
            the thread slows down the threads of the step, which wait for each other, by more than it saves
            (docs/log.md).

    Raises:
        SettingsError: the batch size is not a multiple of the number of ranks.
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
        self.mix: Mix | None = None
        """Mixes the crops of each batch that is made from here on. By default they are not mixed."""
        part = batch_size // ranks
        self._places = range(rank * part, (rank + 1) * part)
        crops = sampler.pixels / sampler.crop**2 if crops_per_image is None else crops_per_image * len(sampler.images)
        self.steps_per_epoch = max(1, round(crops / batch_size))

    def batch(self, epoch: int, step: int) -> Batch:
        """Return the batch of one step. It is the same for the same seed, epoch and step."""
        drawn = [self._draw(epoch, step, place) for place in self._places]
        images, teacher_images, labels, valid, distill_valid, *more = (
            np.stack(part) for part in zip(*drawn, strict=True)
        )
        specs = self.sampler.images.others
        logits = more[len(specs) :]
        batch = Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),  # the memory layout stays channels last
            torch.from_numpy(teacher_images).permute(0, 3, 1, 2),
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(valid),
            torch.from_numpy(distill_valid),
            tuple(_stored(*logits[start : start + 3]) for start in range(0, len(logits), 3)),
            {
                input_spec.reading: torch.from_numpy(part).permute(0, 3, 1, 2)
                for input_spec, part in zip(specs, more, strict=False)
            },
        )
        return batch if self.mix is None else self.mix(batch, (self.seed, epoch, step), self._places)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from step `start` on."""
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
        sampler = self._sampler_at((epoch * self.steps_per_epoch + step) * self.batch_size + place)
        return sampler.draw(rng, self._near(sampler, epoch, step))

    def _near(self, sampler: CropSampler, epoch: int, step: int) -> Indices | None:
        """Return the images from which a step draws crops of a sampler; None for all."""
        fraction = 1.0 if self.unlabeled is None else self.unlabeled.fraction
        fraction = fraction if self.unlabeled is None or sampler is self.unlabeled.sampler else 1 - fraction
        crops = self.steps_per_epoch * self.batch_size * fraction
        if not sampler.images.of_map or sampler.images.fits or crops < _REUSED * len(sampler.images):
            return None
        return sampler.images.near((self.seed, epoch), step / self.steps_per_epoch)

    def _sampler_at(self, number: int) -> CropSampler:
        """Return the sampler of the crop with this number in the training. Unlabelled crops are evenly spread."""
        if self.unlabeled is None:
            return self.sampler
        fraction = self.unlabeled.fraction
        is_unlabeled = int((number + 1) * fraction) > int(number * fraction)
        return self.unlabeled.sampler if is_unlabeled else self.sampler


def _stored(values: npt.NDArray[Any], step: npt.NDArray[Any], low: npt.NDArray[Any]) -> StoredLogits:
    """Build `StoredLogits` from arrays: values (N, h, w, C), and step and low (N, C) or (N, 1)."""
    return StoredLogits(
        torch.from_numpy(values).permute(0, 3, 1, 2), *(torch.from_numpy(one)[..., None, None] for one in (step, low))
    )


class LoaderBatches:
    """Batches from any loader of (images, labels).

    Args:
        loader: a DataLoader, a list or another iterable with a length. It yields images (N, B, H, W), and
            labels (N, H, W) of integers, 255 = void.

    Raises:
        SettingsError: the loader has no length, or is empty.
    """

    def __init__(self, loader: Iterable[tuple[Tensor, Tensor]]) -> None:
        if not isinstance(loader, Sized):
            raise SettingsError("training batches need a length (steps an epoch): give a DataLoader or a list.")
        if not len(loader):
            raise SettingsError(
                "the loader of training batches is empty. Give images; a DataLoader with drop_last needs a whole batch."
            )
        self._loader: Iterable[tuple[Tensor, Tensor]] = loader
        self.steps_per_epoch = len(loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the loader, from step `start` on. The earlier ones are loaded and skipped."""
        for step, batch in enumerate(self._loader):
            if step >= start:
                yield as_batch(batch)


class WholeImages:
    """Batches of whole images, for validation.

    Each pixel appears exactly once. Images are cut into tiles, so that the memory of a step does not grow with the
    image. Tiles of maps are at most half as large, so that it does not grow with the map, whose windows are larger if
    there are many.

    Args:
        images: the images.
        tile: largest side of a tile in pixels.
        rank, ranks: the index of this rank and the number of ranks. They decide which images are yielded here.
    """

    def __init__(self, images: TrainingImages, tile: int = 1024, rank: int = 0, ranks: int = 1) -> None:
        self.images = images
        self.tile = min(tile, _MAP_TILE) if images.of_map else tile
        self._own = range(rank, len(images), ranks)

    def __iter__(self) -> Iterator[Batch]:
        for index in self._own:
            whole = self.images.once(index)
            image, labels = whole.image, whole.labels
            for top in range(0, labels.shape[0], self.tile):
                for left in range(0, labels.shape[1], self.tile):
                    here = np.s_[top : top + self.tile, left : left + self.tile]
                    images = torch.from_numpy(image[here].copy()).permute(2, 0, 1)[None]
                    yield as_batch((images, torch.from_numpy(labels[here].astype(np.int64))[None]))


def as_batch(batch: AnyBatch) -> Batch:
    """Convert (images, labels) into a `Batch` without padding and without colour jitter.

    The teacher's logits are not used on void pixels. To use them on images without labels, pass a `Batch` that sets
    `distill_valid`. A `Batch` is returned unchanged.

    Args:
        batch: a `Batch`, or images (N, B, H, W), and labels (N, H, W) of any integer type, 255 = void.

    Raises:
        DataError: the labels are no integers, or some are below 0 or above 255.
    """
    if isinstance(batch, Batch):
        return batch
    images, labels = batch
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels are {str(labels.dtype).removeprefix('torch.')}; give integers, 255 where there is none."
        )
    labels = labels.long()
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) > VOID):
        raise DataError(f"labels reach from {int(labels.min())} to {int(labels.max())}; classes count from 0, and 255 "
                        "stands for no label.")  # fmt: skip
    return Batch(images, images, labels, torch.ones_like(labels, dtype=torch.bool), labels != VOID)
