"""`Predictor`: an image in, probabilities or labels out, tile by tile, without torch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import Labels
from skystill.errors import DataError
from skystill.model_file import open_session, read_info


class Predictor:
    """A model file, ready to run.

    Args:
        path: a file that SkyStill exported.
        threads: 0 for all cores.

    Raises:
        ModelFileError: the file cannot be opened, or is not ours.
    """

    def __init__(self, path: Path | str, threads: int = 0) -> None:
        self.path = Path(path)
        self._session = open_session(self.path, threads)
        self.info = read_info(self._session, self.path)
        self.classes = self.info.classes

    def probabilities(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Class probabilities of a whole image.

        Large images go through the network in tiles that overlap; of each only the valid centre is kept, so that
        memory besides the result does not grow with the image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (C, H, W) float32, summing to one over C.

        Raises:
            DataError: not such an array, or without pixels.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise DataError(f"an image must be (H, W, 3) uint8 with pixels; this is {image.shape} {image.dtype}.")
        height, width = image.shape[:2]
        result = np.empty((len(self.classes), height, width), np.float32)
        margin = self.info.overlap // 2
        step = self.info.tile_size - 2 * margin
        for top, bottom, read_top, read_bottom in _spans(height, step, margin):
            for left, right, read_left, read_right in _spans(width, step, margin):
                tile = image[read_top:read_bottom, read_left:read_right]
                inner = np.s_[:, top - read_top : bottom - read_top, left - read_left : right - read_left]
                result[:, top:bottom, left:right] = softmax(self._logits(tile)[inner])
        return result

    def labels(self, image: npt.NDArray[np.uint8]) -> Labels:
        """The most probable class of each pixel: (H, W, 3) uint8 to (H, W) uint8."""
        return np.asarray(self.probabilities(image).argmax(axis=0), np.uint8)

    def _logits(self, tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        planes = np.ascontiguousarray(tile.transpose(2, 0, 1))[None]
        return np.asarray(self._session.run(None, {"image": planes})[0][0], np.float32)


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Softmax over the first axis of (C, H, W)."""
    raised = np.exp(logits - logits.max(axis=0))
    return np.asarray(raised / raised.sum(axis=0))


def _spans(size: int, step: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut 0..size into steps: (start, end) of what is kept, and of what is read around it.

    Steps and margins of the default tile are multiples of 64, so that every tile meets the network's down-sampling
    in the same phase as the whole image would.
    """
    for start in range(0, size, step):
        end = min(start + step, size)
        yield start, end, max(0, start - margin), min(size, end + margin)
