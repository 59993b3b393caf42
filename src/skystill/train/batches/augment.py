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
from skystill.raster.input_spec import RGB, InputSpec
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

    def apply_to_image(self, image: npt.NDArray[Any], fill: npt.ArrayLike = 0) -> npt.NDArray[Any]:
        """Apply the augmentation to an image.

        Only images are resized with bilinear interpolation. Everything else takes the nearest pixel.

        Args:
            image: (H, W, B), full resolution.
            fill: value of padding, one for all bands or one for each. Black for colours.

        Returns:
            (size, size, B) of the same type.
        """
        crop = self._cut(image, fill)
        if len(crop) == self.size:
            return crop
        to = (self.size, self.size)
        if image.dtype == np.uint8 and image.shape[2] == 3:
            return np.asarray(Image.fromarray(crop).resize(to, Image.Resampling.BILINEAR))
        bands = [Image.fromarray(band.astype(np.float32)) for band in crop.transpose(2, 0, 1)]
        resized = np.stack([np.asarray(band.resize(to, Image.Resampling.BILINEAR)) for band in bands], axis=2)
        return to_kind(resized, image.dtype)

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

    def _cut(self, array: Sliced, fill: npt.ArrayLike) -> npt.NDArray[Any]:
        seen = self.seen or self.size
        crop = array[self.top : self.top + seen, self.left : self.left + seen]
        if crop.shape[:2] != (seen, seen):
            padded = np.empty((seen, seen, *crop.shape[2:]), crop.dtype)
            padded[:] = fill
            padded[: crop.shape[0], : crop.shape[1]] = crop
            crop = padded
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


def jitter_colors(
    rng: np.random.Generator, image: npt.NDArray[np.uint8], strength: float, input_spec: InputSpec = RGB
) -> npt.NDArray[np.uint8]:
    """Change contrast, brightness and colour balance of an image, as weather, time of day and camera do.

    The change is one table of 256 values per channel, so that a crop costs one look-up per value.

    Args:
        rng: the random generator.
        image: (H, W, 3) uint8 RGB, 0 to 255.
        strength: 0 changes nothing. At 0.2, contrast changes by up to 20 %, around the byte that is normalised to zero
            (128, or less in dark images); brightness by up to 0.4 of the unit (26 of 255, or less); and each channel by
            up to 5 %.
        input_spec: what the network is fed.

    Returns:
        (H, W, 3) uint8. With strength 0 it is `image` itself.
    """
    if strength == 0:
        return image
    contrast = 1 + strength * rng.uniform(-1, 1)
    zero, brightness = input_spec.zero, 2 * input_spec.unit * strength * rng.uniform(-1, 1)
    balance = 1 + strength / 4 * rng.uniform(-1, 1, size=3)
    levels = np.arange(256)[:, None]
    table = np.clip(((levels - zero) * contrast + zero + brightness) * balance, 0, 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(image).point(table.T.ravel().tolist()))


def jitter_values(
    rng: np.random.Generator, image: npt.NDArray[Any], strength: float, input_spec: InputSpec
) -> npt.NDArray[Any]:
    """Change contrast and brightness of an image that holds values: each band around its mean, by its spread.

    The same contrast and brightness hold for all bands, as under another sun. There is no change of colour balance:
    the ratios of bands are what tells vegetation and water apart.

    Args:
        rng: the random generator.
        image: (H, W, B) in the data type of the spec.
        strength: 0 changes nothing. At 0.2, contrast changes by up to 20 %, and brightness by up to 0.4 standard
            deviations, which is as much as `jitter_colors` changes.
        input_spec: what the network is fed.

    Returns:
        (H, W, B) of the same type. With strength 0 it is `image` itself.
    """
    if strength == 0:
        return image
    contrast = 1 + strength * rng.uniform(-1, 1)
    brightness = 2 * strength * rng.uniform(-1, 1)
    mean, std = np.array([(band.mean, band.std) for band in input_spec.bands], np.float32).T
    return to_kind((image - mean) * np.float32(contrast) + (mean + np.float32(brightness) * std), image.dtype)


def to_kind(values: npt.NDArray[np.float32] | npt.NDArray[np.float64], kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """Convert floats to a data type. Integers are rounded, and limited to what the type can hold."""
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.rint(values), limits.min, limits.max).astype(kind)
