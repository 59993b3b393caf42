"""Mixes the crops of a batch with each other, the same for the student and its teachers: CutMix and mixup.

The teacher is to answer what the student is asked (function matching, Beyer 2022, arXiv 2106.05237): both see the same
pixels, also with the same colour jitter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skystill.classes import VOID
from skystill.errors import SettingsError
from skystill.train.batches.augment import to_kind
from skystill.train.batches.batches import Batch
from skystill.train.teachers.logit_cache import StoredLogits

_CROPS, _WEIGHT = 23, 24  # tell these random numbers from those of the crops
Rectangle = tuple[int, int, int, int]
"""Top, bottom, left and right in pixels, ends exclusive."""


@dataclass(frozen=True)
class Mixing:
    """Mixes crops of a batch. It is a pure function of (seed, epoch, step) and of the places of the crops.

    - `cutmix` pastes a rectangle of another crop, with its labels and its cached logits, at the same place (Yun 2019,
      arXiv 1905.04899). The part of the crop that stays is drawn from 0 to 1, and the middle of the rectangle anywhere;
      what lies beyond the edge is cut off. Labels stay exact. Cached logits of a part are those that the teacher gave
      within the whole image of that part, which is not its answer to the mixed crop.
    - `mixup` averages two crops with a weight that is drawn from 0 to 1 for all crops of a step (Zhang 2018, arXiv
      1710.09412). A pixel has two labels then (`Batch.second_labels`). Pixels that are not valid in one of both count
      in no loss.

    The other crop is drawn among those of the same rank, labelled or not.

    Args:
        how: "cutmix" or "mixup".
        fraction: probability, 0 to 1, with which a crop is mixed.
        stride: rectangles begin and end at borders of blocks of stride x stride pixels, so that the mean of logits over
            a block is that of one crop.
    """

    how: Literal["cutmix", "mixup"]
    fraction: float
    stride: int = 1

    def __call__(self, batch: Batch, key: tuple[int, int, int], places: Sequence[int]) -> Batch:
        """Return the mixed batch. Its teachers are fed the images of the student.

        Args:
            batch: at least two crops.
            key: seed, epoch and step.
            places: the place of each crop in the batch of all ranks.

        Raises:
            SettingsError: there is one crop, or there are cached logits under mixup.
        """
        if len(batch) < 2:
            raise SettingsError("crops are mixed with each other: a batch, and the part of each rank, needs two.")
        batch = replace(batch, teacher_images=batch.images)
        rngs = [np.random.default_rng((*key, place, _CROPS)) for place in places]
        # Each crop is drawn in the same order: whether it is mixed, with which one, and where.
        mixed = [(index, rng) for index, rng in enumerate(rngs) if rng.random() < self.fraction]
        others = [(index, (index + int(rng.integers(1, len(batch)))) % len(batch), rng) for index, rng in mixed]
        if self.how == "mixup":
            weight = float(np.random.default_rng((*key, 0, _WEIGHT)).random())
            return _averaged(batch, {index: other for index, other, _ in others}, weight)
        blocks = batch.labels.shape[-1] // self.stride
        pastes = [(index, other, _draw_rectangle(rng, blocks, self.stride)) for index, other, rng in others]
        return _pasted(batch, pastes, self.stride)


def _draw_rectangle(rng: np.random.Generator, blocks: int, stride: int) -> Rectangle:
    """Draw the rectangle of CutMix in a square of blocks x blocks blocks: equations 1 and 2 of the source."""
    half = np.sqrt(1 - rng.random()) * blocks / 2
    row, column = rng.uniform(0, blocks, size=2)
    ends = (max(0, row - half), min(blocks, row + half), max(0, column - half), min(blocks, column + half))
    top, bottom, left, right = (round(end) * stride for end in ends)
    return top, bottom, left, right


def _pasted(batch: Batch, pastes: Sequence[tuple[int, int, Rectangle]], stride: int) -> Batch:
    def paste(tensor: Tensor, side: int = 1) -> Tensor:
        before = tensor.numpy()
        after = before.copy(order="K")
        for index, other, ends in pastes:
            top, bottom, left, right = (end // side for end in ends)
            after[index, ..., top:bottom, left:right] = before[other, ..., top:bottom, left:right]
        return torch.from_numpy(after)

    images = paste(batch.images)
    return Batch(
        images,
        images,
        paste(batch.labels),
        paste(batch.valid),
        paste(batch.distill_valid),
        tuple(_plain(paste(stored.logits(), stride)) for stored in batch.teacher_logits),
        {reading: paste(part) for reading, part in batch.read_otherwise.items()},
    )


def _plain(logits: Tensor) -> StoredLogits:
    """Return logits (N, C, h, w) float32 as they are: crops of different images have different scales."""
    scales = (len(logits), 1, 1, 1)
    return StoredLogits(logits, torch.ones(scales), torch.zeros(scales))


def _averaged(batch: Batch, other_of: dict[int, int], weight: float) -> Batch:
    if batch.teacher_logits:
        raise SettingsError("mixup needs the teacher's answer to the mixed crop, which no cache holds.")
    second = [other_of.get(index, index) for index in range(len(batch))]

    def average(images: Tensor) -> Tensor:
        own = images.numpy()
        mean = np.empty_like(own, np.float64)  # in the memory layout of the images
        for index, other in enumerate(second):
            mean[index] = weight * own[index].astype(np.float64) + (1 - weight) * own[other].astype(np.float64)
        return torch.from_numpy(to_kind(mean, own.dtype))

    images, valid = average(batch.images), batch.valid & batch.valid[second]
    return Batch(
        images,
        images,
        batch.labels.where(valid, VOID),
        valid,
        batch.distill_valid & batch.distill_valid[second],
        (),
        {reading: average(part) for reading, part in batch.read_otherwise.items()},
        batch.labels[second].where(valid, VOID),
        weight,
    )
