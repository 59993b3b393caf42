"""The teacher's logits of whole images on disk, so that it runs once and then leaves the memory.

A network is not equivariant: what it says of a mirrored image is not the mirror of what it said. So by default the
cache holds the mean of its logits over the 8 symmetries of the square, which turns and mirrors exactly with the image,
and is a better teacher besides. One file an image, named by the content of teacher and image; a killed run loses at
most one.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from skystill.dataset import Pair, read_image
from skystill.errors import DataError
from skystill.raster import Grid
from skystill.run_folder import written_whole
from skystill.symmetry import SYMMETRIES, transform, transform_back

Logits16 = npt.NDArray[np.float16]
Track = Callable[[Sequence[Any], str], Iterable[Any]]

_TILE, _MARGIN = 1024, 128


@dataclass(frozen=True)
class LogitCache:
    """Files of one teacher.

    Args:
        folder: where the files are.
        teacher_key: of the teacher's weights and of how they are run; see `teacher_key`.
        symmetric: whether the files hold the mean over the 8 symmetries.
    """

    folder: Path
    teacher_key: str
    symmetric: bool = True

    def path(self, image: Path) -> Path:
        """The file of an image: another one where a byte of the image differs."""
        content = hashlib.sha256(image.read_bytes()).hexdigest()[:24]
        kind = "d4" if self.symmetric else "plain"
        return self.folder / f"{self.teacher_key[:24]}-{kind}" / f"{content}.npy"

    def missing(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Pairs whose image has no file yet."""
        return [pair for pair in pairs if not self.path(pair.image).exists()]

    def bytes_needed(self, sizes: Sequence[tuple[int, int]], num_classes: int) -> int:
        """Size on disk of images of these (height, width)."""
        return sum(height * width for height, width in sizes) * num_classes * 2

    def fill(self, pairs: Sequence[Pair], teacher: nn.Module, device: torch.device, track: Track) -> None:
        """Run the teacher over the images that have no file yet.

        Raises:
            DataError: an image cannot be read.
            DiskFull: no room.
        """
        for pair in track(self.missing(pairs), "teacher"):
            image = read_image(pair.image)
            logits = (
                symmetric_logits(teacher, image, device) if self.symmetric else whole_logits(teacher, image, device)
            )
            with written_whole(self.path(pair.image)) as part:
                np.save(part, logits.astype(np.float16))

    def open(self, image: Path) -> Logits16:
        """(H, W, C) float16, mapped into memory and not read.

        Raises:
            DataError: there is no file, or it is damaged.
        """
        path = self.path(image)
        try:
            logits: Logits16 = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} (teacher's logits of {image}) cannot be read: {error}. Delete it.") from error
        if logits.ndim != 3 or logits.dtype != np.float16:
            raise DataError(f"{path} does not hold logits (H, W, C) in 16 bits. Delete it.")
        return logits


def teacher_key(weights: Path) -> str:
    """Hash of a teacher's weights file and of the way in which this module runs it."""
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(f"tile {_TILE} margin {_MARGIN}".encode())
    return digest.hexdigest()


@torch.no_grad()
def whole_logits(teacher: nn.Module, image: npt.NDArray[np.uint8], device: torch.device) -> npt.NDArray[np.float32]:
    """Logits (H, W, C) of a whole image (H, W, 3) uint8, in tiles of which the valid centre is kept."""
    height, width = image.shape[:2]
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    result: npt.NDArray[np.float32] | None = None
    for unit in Grid(height, width, _TILE, _TILE, _MARGIN, width).units():
        for tile in unit.tiles:
            part = planes[None, :, *tile.read]
            logits = teacher(part.to(device))[0].permute(1, 2, 0).float().cpu().numpy()
            if result is None:
                result = np.empty((height, width, logits.shape[2]), np.float32)
            result[tile.place] = logits[tile.core]
    assert result is not None, "an image has pixels"
    return result


def symmetric_logits(teacher: nn.Module, image: npt.NDArray[np.uint8], device: torch.device) -> npt.NDArray[np.float32]:
    """The mean of `whole_logits` over the 8 symmetries, each turned back."""
    total: npt.NDArray[np.float32] | None = None
    for symmetry in range(SYMMETRIES):
        found = transform_back(whole_logits(teacher, transform(image, symmetry), device), symmetry)
        total = found if total is None else total + found
    assert total is not None, "there are 8 symmetries"
    total /= SYMMETRIES
    return total


def mirror_agreement(cache: LogitCache, image: Path, teacher: nn.Module, device: torch.device) -> float:
    """Share of pixels where the teacher on the mirrored image, and the mirrored cache, have the same class."""
    mirrored = transform(read_image(image), 4)
    live = whole_logits(teacher, mirrored, device).argmax(axis=2)
    return float((live == transform(np.asarray(cache.open(image)), 4).argmax(axis=2)).mean())
