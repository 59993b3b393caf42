"""The teacher's logits of whole images on disk, so that it runs once and then leaves the memory.

A network is not equivariant: what it says of a mirrored image is not the mirror of what it said. So by default the
cache holds the mean of its logits over the 8 symmetries of the square, which turns and mirrors exactly with the image,
and is a better teacher besides. One file an image, named by the content of teacher and image; a killed run loses at
most one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from skystill.data.unlabeled import ImageWindow
from skystill.errors import DataError
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.run_folder import written_whole
from skystill.symmetry import SYMMETRIES, transform, transform_back
from skystill.tiling import Grid
from skystill.train.losses.fused import block_means, contiguous_float32

TILE, MARGIN = 1024, 128
"""How the teacher is run over large images; part of its key."""


class CachedLogits:
    """The logits of one image in their file. Slicing rows and columns reads these and no more, as they are stored:
    a logit is step * value + low, `step` and `low` (C,) float32.

    Args:
        path: a file that `LogitCache.fill` wrote.

    Raises:
        DataError: it is missing, damaged, or holds something else.
    """

    ndim = 3

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = self._map()
            file.get_slice("logits")
            coded = "step" in file.keys()  # noqa: SIM118 - not a dict
            self.step: npt.NDArray[np.float32] = file.get_tensor("step") if coded else np.ones(1, np.float32)
            self.low: npt.NDArray[np.float32] = file.get_tensor("low") if coded else np.zeros(1, np.float32)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} (a teacher's cached logits) cannot be read: {error}. Delete it and run skystill cache again."
            ) from error

    def __getitem__(self, place: tuple[slice, slice]) -> npt.NDArray[Any]:
        """(h, w, C) uint8 or float16."""
        values: npt.NDArray[Any] = self._map().get_slice("logits")[place]
        return values

    def _map(self) -> Any:  # noqa: ANN401 - carries no types
        """The file in memory: anew for each reading (0.1 ms), or all pages once read would count as this process's."""
        return safe_open(self.path, framework="numpy")


@dataclass(frozen=True)
class StoredLogits:
    """Logits of a batch as they are stored, in a quarter of their memory: they are made where they are wanted.

    Args:
        values: (N, C, h, w) uint8, or float16 logits.
        step, low: (N, C, 1, 1) float32, or (N, 1, 1, 1): a logit is step * value + low.
    """

    values: Tensor
    step: Tensor
    low: Tensor

    def logits(self) -> Tensor:
        """(N, C, h, w) float32."""
        return contiguous_float32(self.values).mul_(self.step).add_(self.low)

    def to(self, device: torch.device) -> "StoredLogits":
        """The same on another device."""
        return StoredLogits(*(part.to(device, non_blocking=True) for part in (self.values, self.step, self.low)))


@dataclass(frozen=True)
class LogitCache:
    """Files of one teacher.

    Args:
        folder: where the files are.
        teacher_key: of the teacher's weights and of how they are run.
        symmetric: whether the files hold the mean over the 8 symmetries.
        bits: 16, or 8: 256 steps between the least and the largest logit of each class in each image.
        stride: the files hold means over blocks of stride x stride pixels.
    """

    folder: Path
    teacher_key: str
    symmetric: bool = True
    bits: int = 16
    stride: int = 1

    @property
    def own_folder(self) -> Path:
        """Where the files of this teacher are."""
        how = f"{'d4' if self.symmetric else 'plain'}-{self.bits}{f'-{self.stride}' if self.stride > 1 else ''}"
        return self.folder / f"{self.teacher_key[:24]}-{how}"

    def path(self, image_window: ImageWindow) -> Path:
        """The file of an image: another one where a byte of the image differs."""
        return self.own_folder / f"{image_window.content}.safetensors"

    def missing(self, image_windows: Sequence[ImageWindow]) -> list[ImageWindow]:
        """Images that have no file yet."""
        return [image_window for image_window in image_windows if not self.path(image_window).exists()]

    def bytes_needed(self, sizes: Sequence[tuple[int, int]], num_classes: int) -> int:
        """Size on disk of images of these (height, width)."""
        blocks = sum(-(-height // self.stride) * -(-width // self.stride) for height, width in sizes)
        return blocks * num_classes * self.bits // 8

    def fill(
        self,
        image_windows: Sequence[ImageWindow],
        teacher: nn.Module,
        device: torch.device,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Run the teacher over the images that have no file yet.

        Raises:
            DataError: an image cannot be read.
            DiskFull: no room.
        """
        infer = symmetric_logits if self.symmetric else whole_logits
        for image_window in tracked(self.missing(image_windows), "teacher", on_progress):
            logits = _blocks(infer(teacher, image_window.read()[0], device), self.stride)
            with written_whole(self.path(image_window)) as part:
                save_file(self._pack(logits), part)

    def _pack(self, logits: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        if self.bits == 16:
            return {"logits": logits.astype(np.float16)}
        low = logits.min(axis=(0, 1))
        step = np.maximum((logits.max(axis=(0, 1)) - low) / 255, 1e-6).astype(np.float32)
        return {"logits": np.rint((logits - low) / step).astype(np.uint8), "step": step, "low": low}

    def open(self, image_window: ImageWindow) -> CachedLogits:
        """The logits (H, W, C) of an image, read where they are sliced.

        Raises:
            DataError: there is no file, or it is damaged.
        """
        return CachedLogits(self.path(image_window))

    def what_else(self) -> str:
        """What a folder without the wanted files does hold, in words."""
        if self.own_folder.is_dir():
            return "it holds this teacher's logits of other images"
        if self.folder.is_dir() and any(self.folder.iterdir()):
            return "it holds the logits of another teacher, or in other bits, symmetry or resolution"
        return "it is empty"


def _blocks(logits: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Means of blocks of side x side pixels (H, W, C). Beyond the image its last pixels are repeated."""
    if side == 1:
        return logits
    height, width = logits.shape[:2]
    padded = np.pad(logits, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    means = block_means(torch.from_numpy(padded).permute(2, 0, 1), side)
    return np.asarray(means.permute(1, 2, 0).numpy())


@torch.no_grad()
def whole_logits(teacher: nn.Module, image: npt.NDArray[np.uint8], device: torch.device) -> npt.NDArray[np.float32]:
    """Logits (H, W, C) of a whole image (H, W, 3) uint8, in tiles of which the valid centre is kept."""
    height, width = image.shape[:2]
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    result: npt.NDArray[np.float32] | None = None
    for unit in Grid(height, width, TILE, TILE, MARGIN, width).units():
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


def mirror_agreement(cache: LogitCache, image_window: ImageWindow, teacher: nn.Module, device: torch.device) -> float:
    """Share of pixels, or of blocks, where the teacher on the mirrored image and the mirrored cache agree in class."""
    image = image_window.read()[0]
    live = transform_back(whole_logits(teacher, transform(image, 4), device), 4)
    cached = cache.open(image_window)
    logits = cached[:, :] * cached.step + cached.low
    return float((_blocks(live, cache.stride).argmax(axis=2) == logits.argmax(axis=2)).mean())
