"""Finds the classes that the teachers do not find where the labels have them.

Their answers would teach that there are none, so these classes are learnt from labels alone.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from skystill.data.pairs import Pair
from skystill.data.prepare import PreparedData
from skystill.data.read import read_image, read_pair
from skystill.data.unlabeled import ImageWindow
from skystill.progress import Note, OnProgress, tracked
from skystill.report.metrics import confusion_counts
from skystill.settings import DistillSettings
from skystill.train.loop.machines import from_first_rank
from skystill.train.loop.ranks import name_lost_ranks
from skystill.train.networks.blocks import to_memory_format
from skystill.train.teachers.logit_cache import whole_logits
from skystill.train.teachers.teacher import combine
from skystill.train.teaching import Teaching

_IMAGES = 2
"""How many training images are looked at for each class: those that hold most of it."""
_FOUND = 0.01
"""A class of which the teachers find a smaller part of the labelled pixels is one that they do not find."""


def without_missed(
    teaching: Teaching, settings: DistillSettings, prepared: PreparedData, fabric: Fabric, on_progress: OnProgress
) -> Teaching:
    """Return the teachers without the classes that they do not find, and name these in a note.

    The most likely class of the teachers' mean is compared with the labels, on the training images that hold most of a
    class. A class is not found if that gives fewer than 1 % of its pixels. Classes without a score are left as they
    are, and so is everything if the teachers find fewer than two classes. Of several ranks, the first looks for all.

    Args:
        teaching: the teachers. Networks are moved to the device of `fabric`.
        settings: how to distil.
        prepared: the data, checked and split.
        fabric: where networks run.
        on_progress: called with a `Progress` for each image, and with a note on classes that are not found.

    Raises:
        DataError: an image, a mask or a cached file cannot be read.
    """
    taught = teaching.teachers.taught_labels or tuple(range(len(prepared.classes)))
    looked_at = _images_with(taught, prepared) if fabric.is_global_zero else []
    confusion = np.zeros((len(prepared.classes),) * 2, np.int64)
    for network in teaching.networks:
        fabric.to_device(to_memory_format(network, torch.channels_last))
    for pair in tracked(looked_at, "looking at which classes the teachers find", on_progress, leaves_line=False):
        labels = read_pair(pair, prepared.classes, prepared.spec)[1].labels
        answer = np.asarray(taught, np.uint8)[_most_likely(pair, teaching, settings, fabric.device)]
        side = settings.distillation_stride if teaching.caches else 1
        answer = answer.repeat(side, axis=0).repeat(side, axis=1)[: labels.shape[0], : labels.shape[1]]
        confusion += confusion_counts(labels, answer, len(prepared.classes))
    counts = np.stack([confusion.sum(axis=1), confusion.diagonal()])  # pixels with this label; those that are found
    with name_lost_ranks(fabric):  # a class at the border must not be compared on one rank and left out on another
        counts = np.frombuffer(from_first_rank(fabric, counts.tobytes()), np.int64).reshape(counts.shape)
    missed = tuple(label for label in taught if prepared.classes.scored[label] and _is_missed(*counts[:, label]))
    if not missed:
        return teaching
    named = ", ".join(f"{prepared.classes.names[label]} ({_part(*counts[:, label])})" for label in missed)
    texts = " + ".join(settings.teacher)
    if len(taught) - len(missed) < 2:
        on_progress(Note(f"{texts} finds almost nothing of {named}: a teacher that does not tell classes apart cannot "
                         "help. Look at its bands, its class names and the scale of its input."))  # fmt: skip
        return teaching
    on_progress(Note(f"{texts} does not find {named} where the labels have it, and its answers would teach that there "
                     "is none: learnt from labels alone."))  # fmt: skip
    return replace(teaching, missed_labels=missed)


def _is_missed(pixels: int, found: int) -> bool:
    return found < _FOUND * pixels


def _part(pixels: int, found: int) -> str:
    return f"{found:,} of {pixels:,} pixels"


def _images_with(labels: tuple[int, ...], prepared: PreparedData) -> list[Pair]:
    """Return the training images that hold most of each class, in the order of the split, each once."""
    pairs, records = prepared.split.train, prepared.check.by_key
    counts = np.array([records[pair.key].counts[list(labels)] for pair in pairs])
    most = np.argsort(-counts, axis=0, kind="stable")[:_IMAGES]
    chosen = {int(row) for column, rows in enumerate(most.T) for row in rows if counts[row, column]}
    return [pair for row, pair in enumerate(pairs) if row in chosen]


def _most_likely(
    pair: Pair, teaching: Teaching, settings: DistillSettings, device: torch.device
) -> npt.NDArray[np.int64]:
    """Return the index of the teachers' most likely class, (H, W), or one for each block of a cache."""
    answers = [torch.from_numpy(logits).permute(2, 0, 1)[None] for logits in _answers(pair, teaching, device)]
    mean: Tensor = combine(answers, settings.teacher_weight or [1.0] * len(answers), 1.0)
    return np.asarray(mean[0].argmax(dim=0).numpy())


def _answers(pair: Pair, teaching: Teaching, device: torch.device) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the logits (H, W, C) of each teacher."""
    if teaching.caches:
        for cache in teaching.caches:
            yield cache.open(ImageWindow(pair.image, pair.bounds)).whole()
        return
    for network, origin in zip(teaching.networks, teaching.teachers.origins, strict=True):
        yield whole_logits(network, read_image(pair.image, origin.input_spec, pair.bounds), device)
