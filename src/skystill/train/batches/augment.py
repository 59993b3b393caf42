"""Random augmentation of training samples.

The geometric augmentation (a crop, its scale, and one of the 8 symmetries of the square) is drawn once per sample. It
is applied to everything that must stay aligned: image, labels and logits. Colour jitter is not geometric and is applied
only to the student's input.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill.classes import VOID
from skystill.symmetry import SYMMETRIES, transform


class Sliced(Protocol):
    """An array (H, W, ...), or a file with such an array that is read by slices."""

    @property
    def ndim(self) -> int:
        """The number of axes."""
        ...

    def __getitem__(self, place: tuple[slice, slice], /) -> npt.NDArray[Any]:
        """Return the part in a slice of rows and a slice of columns."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """A geometric augmentation: a crop, its symmetry and its scale.

    Args:
        top, left: row and column of the crop's upper left corner in the image (row first, as in numpy).
        size: side of the square result in pixels.
        symmetry: 0 to 7. The crop is turned by symmetry % 4 quarter turns. From 4 on it is then mirrored left to right.
        seen: side of the square crop in pixels of the image. If it differs from `size`, the crop is resized. None means
            `size`. The crop may reach beyond the lower and right edge of a small image; this part is padding.
    """

    top: int
    left: int
    size: int
    symmetry: int = 0
    seen: int | None = None

    def apply_to_valid(self, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Apply the augmentation to the validity of pixels. Padding becomes False.

        Args:
            valid: (H, W) bool, False for pixels that do not count.

        Returns:
            (size, size) bool.
        """
        return self._nearest(self._cut(valid, False))

    def apply_to_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Apply the augmentation to an image. Padding becomes black.

        Only images are resized with bilinear interpolation. Everything else takes the nearest pixel.

        Args:
            image: (H, W, 3) uint8 RGB, 0 to 255, full resolution.

        Returns:
            (size, size, 3) uint8.
        """
        crop = self._cut(image, 0)
        if len(crop) == self.size:
            return crop
        return np.asarray(Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.BILINEAR))

    def apply_to_labels(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Apply the augmentation to labels. Padding becomes void.

        Args:
            labels: (H, W) uint8, 255 = void.

        Returns:
            (size, size) uint8.
        """
        return self._nearest(self._cut(labels, VOID))

    def apply_to_logits(self, logits: Sliced, side: int) -> npt.NDArray[Any]:
        """Apply the augmentation to the logits of blocks of side x side pixels, as they are stored.

        The crop must begin and end at borders of blocks. The values of padding have no meaning.

        Args:
            logits: (H / side, W / side, C) uint8 or float16, values as stored.
            side: of the blocks, in pixels of the image.

        Returns:
            (size / side, size / side, C) of the same type.
        """
        top, left, size, seen = (value // side for value in (self.top, self.left, self.size, self.seen or self.size))
        coarse = Augmentation(top, left, size, self.symmetry, seen)
        return coarse._nearest(coarse._cut(logits, 0))

    def _cut(self, array: Sliced, fill: int) -> npt.NDArray[Any]:
        seen = self.seen or self.size
        crop = array[self.top : self.top + seen, self.left : self.left + seen]
        missing = (seen - crop.shape[0], seen - crop.shape[1])
        if any(missing):
            pads = [(0, missing[0]), (0, missing[1]), *[(0, 0)] * (array.ndim - 2)]
            crop = np.pad(crop, pads, constant_values=fill)
        return transform(crop, self.symmetry)

    def _nearest(self, crop: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(crop) == self.size:
            return crop
        at = ((np.arange(self.size) + 0.5) * (len(crop) / self.size)).astype(int)  # the pixel at each centre
        resized: npt.NDArray[Any] = crop[at[:, None], at]
        return resized


def draw_augmentation(
    rng: np.random.Generator, height: int, width: int, size: int, zoom: float = 0.0, side: int = 1
) -> Augmentation:
    """Draw a crop of an image, its scale and its symmetry.

    All places and all symmetries are equally likely. An image smaller than the crop is padded.

    Args:
        rng: the random generator.
        height: of the image, in pixels.
        width: of the image, in pixels.
        size: side of the result, in pixels.
        zoom: the side of the crop is up to (1 + zoom) times larger or smaller than that of the result. 0 draws no
            scale.
        side: the crop begins and ends at borders of blocks of side x side pixels.
    """
    seen = round(size * (1 + zoom) ** rng.uniform(-1, 1)) if zoom else size
    top = int(rng.integers(0, max(0, height - seen) + 1))
    left = int(rng.integers(0, max(0, width - seen) + 1))
    top, left, seen = (value - value % side for value in (top, left, seen))
    return Augmentation(top, left, size, int(rng.integers(SYMMETRIES)), seen)


def jitter_colors(rng: np.random.Generator, image: npt.NDArray[np.uint8], strength: float) -> npt.NDArray[np.uint8]:
    """Change contrast, brightness and colour balance of an image, as weather, time of day and camera do.

    The change is one table of 256 values per channel, so that a crop costs one look-up per value.

    Args:
        rng: the random generator.
        image: (H, W, 3) uint8 RGB, 0 to 255.
        strength: 0 changes nothing. At 0.2, contrast changes by up to 20 %, brightness by up to 20 % of mid-grey (128),
            and each channel by up to 5 %.

    Returns:
        (H, W, 3) uint8. With strength 0 it is `image` itself.
    """
    if strength == 0:
        return image
    contrast = 1 + strength * rng.uniform(-1, 1)
    brightness = 128 * strength * rng.uniform(-1, 1)
    balance = 1 + strength / 4 * rng.uniform(-1, 1, size=3)
    levels = np.arange(256)[:, None]
    table = np.clip(((levels - 128) * contrast + 128 + brightness) * balance, 0, 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(image).point(table.T.ravel().tolist()))
