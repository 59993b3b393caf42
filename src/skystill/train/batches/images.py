"""Images for training: decoded once, with their labels and their validity, as the network and its teachers are fed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Labels
from skystill.data import Pair, read_pair
from skystill.data.unlabeled import ImageWindow, all_valid, whole_images
from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.batches.augment import Augmentation

_HELD_BYTES = 4 * 2**30  # of decoded images kept in memory; other images are read from disk for each crop
_HELD_OF_MAP_BYTES = 96 * 2**20  # of windows of a map, which may have any size
Indices = npt.NDArray[np.intp]
_GROUPS = 22  # tells the random numbers of the groups from those of the crops


@dataclass(frozen=True)
class TrainingImage:
    """An image with its labels and its validity.

    Args:
        image: (H, W, B) in the data type of the spec, full resolution.
        labels: (H, W) uint8, 255 = void. Without a mask all pixels are void.
        valid: (H, W) bool, False on nodata and on transparent pixels. These are void in the labels.
        labeled: True if the image has a mask.
        others: the image as it is read by each of the other specs.
        others_valid: (H, W) bool, False on pixels that are not valid for one of the teachers.
    """

    image: npt.NDArray[Any]
    labels: Labels
    valid: npt.NDArray[np.bool_]
    labeled: bool
    others: tuple[npt.NDArray[Any], ...] = ()
    others_valid: npt.NDArray[np.bool_] | None = None

    @property
    def nbytes(self) -> int:
        """The memory of the arrays in bytes."""
        more = 0 if self.others_valid is None else self.others_valid.nbytes
        arrays = (self.image, self.labels, self.valid, *self.others)
        return more + sum(array.nbytes for array in arrays)


class TrainingImages:
    """A sequence of images that are kept in memory after decoding, up to 4 GiB in all.

    All images are read once at the start, because their sizes are needed. Windows of rasters whose sizes are known are
    not, if they take more than 4 GiB: none is kept then, and of each only what a crop shows is read. The first window
    of each file is read at the start, so that a file that cannot be read is known before the training.

    Of windows of a map, 96 MiB are kept. If there are more, an epoch goes through them in groups of that size (`near`),
    because to read a crop alone takes half as long as to read the window that holds sixteen.

    Args:
        image_windows: the images.
        read: reads and decodes the image of an index, or the part of it in a window of the same file.
        input_spec: what the trained network is fed.
        others: what teachers are fed that are fed otherwise.
        of_map: whether the images are windows of a map.
    """

    def __init__(
        self,
        image_windows: Sequence[ImageWindow],
        read: Callable[[int, ImageWindow], TrainingImage],
        input_spec: InputSpec = RGB,
        others: Sequence[InputSpec] = (),
        of_map: bool = False,
    ) -> None:
        self.image_windows = tuple(image_windows)
        self.input_spec, self.others = input_spec, tuple(others)
        self._read = read
        self._held: dict[int, TrainingImage] = {}
        self._held_bytes, self._most_bytes = 0, _HELD_OF_MAP_BYTES if of_map else _HELD_BYTES
        self.of_map = of_map
        self._groups: tuple[tuple[int, int] | None, list[Indices]] = None, []
        known = of_map or all(window.bounds is not None for window in image_windows)
        self.sizes = [window.size if known else self[index].labels.shape for index, window in enumerate(image_windows)]
        self._pixels = np.array([height * width for height, width in self.sizes], np.int64)
        fed = sum(len(one) * np.dtype(one.dtype).itemsize for one in (input_spec, *others))
        self._window_bytes = self._pixels * (fed + 2)  # with labels and validity
        self.fits = not known or int(self._window_bytes.sum()) <= self._most_bytes
        """Whether all images can be kept in memory. Whole images may also be read again."""
        if not of_map:
            self._read_ahead()

    def _read_ahead(self) -> None:
        if self.fits:
            for index in range(len(self)):
                self[index]
            return
        first: dict[Path, int] = {}
        for index, window in enumerate(self.image_windows):
            first.setdefault(window.path, index)
        for index in first.values():
            self._read(index, self.image_windows[index])

    def near(self, key: tuple[int, int], place: float) -> Indices:
        """Return the images from which crops are drawn at a place of an epoch, so that few are in memory at once.

        An epoch goes through all images in random groups that fit in memory. A group has a part of the epoch that is
        proportional to its area, so that each pixel is as likely as any other.

        Args:
            key: seed and epoch.
            place: 0 at the beginning of the epoch, 1 at its end.
        """
        if self._groups[0] != key:
            order = np.random.default_rng((*key, _GROUPS)).permutation(len(self))
            # A window that lies across the end of a group belongs to it as a whole.
            size = max(1, int(0.9 * self._most_bytes) - int(self._window_bytes.max()))
            group = (np.cumsum(self._window_bytes[order]) - 1) // size
            self._groups = key, np.split(order, np.flatnonzero(np.diff(group)) + 1)
        ends = np.cumsum([self._pixels[group].sum() for group in self._groups[1]])
        return self._groups[1][int(np.searchsorted(ends, place * ends[-1], side="right").clip(max=len(ends) - 1))]

    def __len__(self) -> int:
        return len(self.image_windows)

    def __getitem__(self, index: int) -> TrainingImage:
        """Return the image from memory, or read it from disk."""
        if index in self._held:
            return self._held[index]
        image = self._read(index, self.image_windows[index])
        if self._held_bytes + image.nbytes <= self._most_bytes:
            self._held[index] = image
            self._held_bytes += image.nbytes
        return image

    def once(self, index: int) -> TrainingImage:
        """Return an image for a use after which all others come first. A window of a map is not kept in memory."""
        return self._read(index, self.image_windows[index]) if self.of_map or not self.fits else self[index]

    def take(self, index: int) -> TrainingImage:
        """Return an image from memory, or read it and put it into the place of those that were not used for longest."""
        if index in self._held:
            self._held[index] = image = self._held.pop(index)  # now the last one
            return image
        image = self._read(index, self.image_windows[index])
        while self._held and self._held_bytes + image.nbytes > self._most_bytes:
            self._held_bytes -= self._held.pop(next(iter(self._held))).nbytes
        self._held[index] = image
        self._held_bytes += image.nbytes
        return image

    def part(self, index: int, augmentation: Augmentation) -> tuple[TrainingImage, Augmentation]:
        """Return an image with the augmentation to apply to it: all of it, or of a window only what it sees."""
        bounds = self.image_windows[index].bounds
        if self.fits or bounds is None or index in self._held:
            return self[index], augmentation
        top, left = bounds[0] + augmentation.top, bounds[2] + augmentation.left
        side = augmentation.seen or augmentation.size
        seen = top, min(bounds[1], top + side), left, min(bounds[3], left + side)
        window = ImageWindow(self.image_windows[index].path, seen)
        return self._read(index, window), replace(augmentation, top=0, left=0)


def labeled_images(
    pairs: Sequence[Pair],
    classes: ClassMap,
    input_spec: InputSpec = RGB,
    others: Sequence[InputSpec] = (),
    cached: Sequence[InputSpec] = (),
) -> TrainingImages:
    """Return the images of pairs, with the labels of their masks.

    Args:
        pairs: images and masks.
        classes: the classes of the masks.
        input_spec: what the trained network is fed.
        others: what teachers are fed that are fed otherwise.
        cached: what teachers were fed whose logits are cached. Their images are read once, for the pixels that are not
            valid for them.

    Raises:
        DataError: an image or a mask cannot be read.
    """

    def read(index: int, window: ImageWindow) -> TrainingImage:
        picture, reading = read_pair(replace(pairs[index], bounds=window.bounds), classes, input_spec)
        valid = all_valid(*reading.labels.shape) if picture.valid is None else picture.valid
        return TrainingImage(picture.image, reading.labels, valid, True, *_read_others(window, others, cached))

    of_map = any(pair.is_window for pair in pairs)
    return TrainingImages(whole_images(pairs), read, input_spec, others, of_map)


def unlabeled_images(
    image_windows: Sequence[ImageWindow],
    input_spec: InputSpec = RGB,
    others: Sequence[InputSpec] = (),
    cached: Sequence[InputSpec] = (),
    of_map: bool = False,
) -> TrainingImages:
    """Return images without masks. All their labels are void.

    Args:
        image_windows: the images.
        input_spec: what the trained network is fed.
        others: what teachers are fed that are fed otherwise.
        cached: as in `labeled_images`.
        of_map: whether windows of a map are among them, so that there may be any number of them.

    Raises:
        DataError: an image cannot be read.
    """

    def read(index: int, window: ImageWindow) -> TrainingImage:
        image, valid = window.read(input_spec)
        labels = np.full(valid.shape, VOID, np.uint8)
        return TrainingImage(image, labels, valid, False, *_read_others(window, others, cached))

    return TrainingImages(image_windows, read, input_spec, others, of_map)


def _read_others(
    image_window: ImageWindow, others: Sequence[InputSpec], cached: Sequence[InputSpec]
) -> tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[np.bool_] | None]:
    """Return the image as it is read by other specs, and where all of these and those of caches are valid."""
    read = [image_window.read(input_spec) for input_spec in others]
    masks = [valid for _, valid in read] + [image_window.read(input_spec)[1] for input_spec in cached]
    return tuple(image for image, _ in read), np.logical_and.reduce(masks) if masks else None
