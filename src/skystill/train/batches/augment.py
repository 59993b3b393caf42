"""A geometric view (a crop, its scale, one of the 8 symmetries of the square) drawn once and applied to everything that
must stay aligned: image, labels, logits. Colour jitter is not geometry: it goes to the student's input only.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill.classes import VOID
from skystill.symmetry import SYMMETRIES, transform


class Sliced(Protocol):
    """An array, or a file that is read by slices: (H, W, ...)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        ...

    def __getitem__(self, place: tuple[slice, slice], /) -> npt.NDArray[Any]:
        """Rows and columns."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """A crop, a symmetry, a scale.

    Args:
        top, left: row and column of the crop's corner in the image (row first, as numpy).
        size: side of the square result in pixels.
        symmetry: 0..7; the crop is turned by symmetry % 4 quarter turns, then, from 4 up, mirrored left to right.
        seen: side of the crop in the image's pixels; where it is not `size`, the crop is resized. It may reach beyond a
            smaller image: the rest is padding.
    """

    top: int
    left: int
    size: int
    symmetry: int = 0
    seen: int | None = None

    def apply_to_mask(self, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(H, W) bool to (size, size): pixels that the image has; padding is False and counts nowhere."""
        return self._nearest(self._cut(valid, False))

    def apply_to_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 to (size, size, 3); padding is black. Resized smoothly, all else by the nearest pixel."""
        crop = self._cut(image, 0)
        if len(crop) == self.size:
            return crop
        return np.asarray(Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.BILINEAR))

    def apply_to_labels(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 to (size, size); padding is void."""
        return self._nearest(self._cut(labels, VOID))

    def apply_to_logits(self, logits: Sliced, side: int) -> npt.NDArray[Any]:
        """Logits of blocks of side x side pixels (H / side, W / side, C) to (size / side, size / side, C), as they are
        stored. The view must begin and end between blocks. What padding is means nothing.
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
        at = ((np.arange(self.size) + 0.5) * (len(crop) / self.size)).astype(int)  # pixel centres
        resized: npt.NDArray[Any] = crop[at[:, None], at]
        return resized


def draw_augmentation(
    rng: np.random.Generator, height: int, width: int, size: int, zoom: float = 0.0, side: int = 1
) -> Augmentation:
    """Draw a crop of an image and a symmetry, all equally likely. An image smaller than the crop is padded.

    Args:
        rng: draws.
        height: of the image, in pixels.
        width: of the image, in pixels.
        size: side of the result.
        zoom: the crop's side is up to (1 + zoom) times larger or smaller than the result's.
        side: the crop begins and ends between blocks of side x side pixels.
    """
    seen = round(size * (1 + zoom) ** rng.uniform(-1, 1)) if zoom else size
    top = int(rng.integers(0, max(0, height - seen) + 1))
    left = int(rng.integers(0, max(0, width - seen) + 1))
    top, left, seen = (value - value % side for value in (top, left, seen))
    return Augmentation(top, left, size, int(rng.integers(SYMMETRIES)), seen)


def jitter_colors(rng: np.random.Generator, image: npt.NDArray[np.uint8], strength: float) -> npt.NDArray[np.uint8]:
    """Change contrast, brightness and the balance of the channels, as weather, hour and camera do.

    One table of 256 values a channel, so that a crop costs a look-up a pixel.

    Args:
        rng: draws the change.
        image: (H, W, 3) uint8.
        strength: 0 changes nothing; at 0.2 contrast and brightness change by up to 20 %, a channel by up to 5 %.
    """
    if strength == 0:
        return image
    contrast = 1 + strength * rng.uniform(-1, 1)
    brightness = 128 * strength * rng.uniform(-1, 1)
    balance = 1 + strength / 4 * rng.uniform(-1, 1, size=3)
    levels = np.arange(256)[:, None]
    table = np.clip(((levels - 128) * contrast + 128 + brightness) * balance, 0, 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(image).point(table.T.ravel().tolist()))
