"""A cache on disk of the teacher's logits of whole images. The teacher runs once and is then not needed in memory.

A network is not equivariant: its logits for a mirrored image are not the mirrored logits of the image. By default, the
cache therefore holds the mean of the logits over the 8 symmetries of the square. This mean is exactly equivariant to
rotations and flips of the image, and it is also a better teacher.

There is one file per image. Its path depends on the content of the teacher and of the image. A run that is killed loses
at most one file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
from skystill.digests import KEY, UNKNOWN, check_once, check_safetensors, seal_safetensors
from skystill.errors import DataError, DiskFull, shortened
from skystill.locks import hold_lock
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import RGB, InputSpec
from skystill.run_folder import written_whole
from skystill.symmetry import SYMMETRIES, transform, transform_back
from skystill.tiling import Grid
from skystill.train.losses.fused import block_means, contiguous_float32
from skystill.train.teachers.teacher import check_finite
from skystill.unfinished import is_left

TILE, MARGIN = 1024, 128
"""Largest side of the tiles in which the teacher runs over an image, and the margin on each side of a tile, in pixels.
Both are part of the key of the cached logits."""


class CachedLogits:
    """The cached logits (H, W, C) of one image, read from their file by slices.

    A slice of rows and columns reads only these from the file, and returns the values as they are stored. A logit is
    step * value + low. `step` and `low` are float32, (C,) in a file of 8 bits and (1,) in a file of 16 bits.

    Args:
        path: a file that `LogitCache.fill` wrote.

    Raises:
        DataError: the file is missing or damaged, or holds something else.
    """

    ndim = 3

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            check_once(
                path, check_safetensors
            )  # once: hashing takes 0.7 s per gigabyte, and slices are read all the time
            file = self._map()
            stored = file.get_slice("logits")
            self.shape, self.dtype = tuple(stored.get_shape()), str(stored.get_dtype())
            coded = "step" in file.keys()  # noqa: SIM118 - not a dict
            self.step: npt.NDArray[np.float32] = file.get_tensor("step") if coded else np.ones(1, np.float32)
            self.low: npt.NDArray[np.float32] = file.get_tensor("low") if coded else np.zeros(1, np.float32)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} (a teacher's cached logits) cannot be read: {shortened(error)}. Delete it and run "
                "skystill cache again."
            ) from error

    def check(self, height: int, width: int, bits: int) -> None:
        """Compare what the file declares with the image that it belongs to.

        Args:
            height: number of rows that the logits of the image have.
            width: number of columns.
            bits: 8 or 16, as the cache stores logits.

        Raises:
            DataError: the file holds logits of another size, or in another form.
        """
        fits = len(self.shape) == 3 and self.shape[:2] == (height, width) and self.shape[2] > 0
        scales = self.shape[2:] if bits == 8 else (1,)
        scaled = all(part.shape == scales and part.dtype == np.float32 for part in (self.step, self.low))
        if fits and scaled and self.dtype == ("U8" if bits == 8 else "F16"):
            return
        raise DataError(
            f"{self.path} (a teacher's cached logits) holds {list(self.shape)} {self.dtype} with "
            f"{list(self.step.shape)} and {list(self.low.shape)} scale(s); its image takes [{height}, {width}, classes]"
            f" in {bits} bits. Delete it and run skystill cache again."
        )

    def __getitem__(self, place: tuple[slice, slice]) -> npt.NDArray[Any]:
        """Return the stored values of a slice of rows and a slice of columns: (h, w, C) uint8 or float16.

        As in numpy, the part of a slice beyond the image is left out: a crop may be larger than its image.
        """
        stored = self._map().get_slice("logits")
        rows, columns = (slice(*one.indices(size)[:2]) for one, size in zip(place, stored.get_shape(), strict=False))
        values: npt.NDArray[Any] = stored[rows, columns]
        return values

    def whole(self) -> npt.NDArray[np.float32]:
        """Return the logits of the whole image, (H, W, C)."""
        logits: npt.NDArray[np.float32] = self[:, :] * self.step + self.low
        return logits

    def _map(self) -> Any:  # noqa: ANN401 - carries no types
        """Map the file into memory.

        Each read maps it again, which takes 0.1 ms. With one mapping for all reads, every page that was ever read would
        count as memory of this process.
        """
        return safe_open(self.path, framework="numpy")


@dataclass(frozen=True)
class StoredLogits:
    """The logits of a batch in the form in which they are stored.

    As uint8 they take a quarter of the memory of float32. They are converted only where they are used.

    Args:
        values: (N, C, h, w) uint8, or float16 logits.
        step, low: (N, C, 1, 1) or (N, 1, 1, 1) float32. A logit is step * value + low.
    """

    values: Tensor
    step: Tensor
    low: Tensor

    def logits(self) -> Tensor:
        """Return the logits, (N, C, h, w) float32."""
        return contiguous_float32(self.values).mul_(self.step).add_(self.low)

    def to(self, device: torch.device) -> "StoredLogits":
        """Return a copy on another device."""
        return StoredLogits(*(part.to(device, non_blocking=True) for part in (self.values, self.step, self.low)))


@dataclass(frozen=True)
class LogitCache:
    """The cached logits of one teacher: where the files are, and how the logits are stored in them.

    Args:
        folder: the folder of the cache. It may hold the files of several teachers, each in a folder of its own.
        teacher_key: a hash of the teacher's weights and of how they are run.
        symmetric: True if the files hold the mean over the 8 symmetries. The teacher then runs 8 times on each image.
        bits: 16 for float16, or 8 for uint8 with 256 levels between the smallest and the largest logit of each class in
            each image. 8 needs half the disk space.
        stride: the files hold means over blocks of stride x stride pixels. Disk space falls with its square.
        input_spec: what the teacher is fed.
    """

    folder: Path
    teacher_key: str
    symmetric: bool = True
    bits: int = 16
    stride: int = 1
    input_spec: InputSpec = RGB

    @property
    def own_folder(self) -> Path:
        """The folder of the files of this teacher, symmetry, number of bits and stride."""
        how = f"{'d4' if self.symmetric else 'plain'}-{self.bits}{f'-{self.stride}' if self.stride > 1 else ''}"
        return self.folder / f"{self.teacher_key[:24]}-{how}"

    def path(self, image_window: ImageWindow) -> Path:
        """Return the path of an image's file. It depends on the content of the image, not on its name."""
        return self.own_folder / f"{image_window.content(self.input_spec)}.safetensors"

    def missing(self, image_windows: Sequence[ImageWindow]) -> list[ImageWindow]:
        """Return the images that have no file yet."""
        return [image_window for image_window in image_windows if not self.path(image_window).exists()]

    @contextmanager
    def held(self, part: int, parts: int, on_progress: OnProgress = ignore_progress) -> Iterator[None]:
        """Hold one part of the cache, so that two processes do not run the teacher on the same images, and clear it.

        A process waits while another one fills the same part. Other parts can be filled at the same time.

        Args:
            part: the number of the part, from 1.
            parts: the number of parts.
            on_progress: receives a `Message` if it waits.

        Raises:
            DiskFull: the folder cannot be written.
        """
        with hold_lock(self.own_folder / f".lock-{part}-of-{parts}", str(self.own_folder), on_progress, wait=True):
            self.clear()
            try:
                yield
            finally:
                self.clear()  # of workers that were killed meanwhile

    def clear(self) -> None:
        """Remove what processes left that were killed. Others may be writing meanwhile, even the same images."""
        for part in self.own_folder.glob(".part-*"):
            if is_left(part):
                with suppress(OSError):  # of another user
                    part.unlink()

    def bytes_needed(self, sizes: Sequence[tuple[int, int]], num_classes: int) -> int:
        """Return the bytes that the logits of images take on disk.

        Args:
            sizes: (height, width) of each image in pixels.
            num_classes: C of the logits.
        """
        blocks = sum(-(-height // self.stride) * -(-width // self.stride) for height, width in sizes)
        return blocks * num_classes * self.bits // 8

    def fill(
        self,
        image_windows: Sequence[ImageWindow],
        teacher: nn.Module,
        device: torch.device,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Run the teacher over the images that have no file yet, and write their files.

        Args:
            image_windows: the images. Those that have a file already are skipped.
            teacher: images (1, B, H, W), as `input_spec` says, to logits (1, C, H, W).
            device: the device on which the teacher runs. The teacher must be there already.
            on_progress: receives a `Progress` after each image.

        Raises:
            DataError: an image cannot be read, or a logit is too large for 16 bits.
            TeacherNotFinite: a logit is NaN or infinite.
            DiskFull: a file cannot be written.
        """
        infer = symmetric_logits if self.symmetric else whole_logits
        for image_window in tracked(self.missing(image_windows), "teacher", on_progress, leaves_line=True):
            found = infer(teacher, image_window.read(self.input_spec)[0], device)
            name = getattr(teacher, "name", type(teacher).__name__)
            check_finite(torch.from_numpy(found).permute(2, 0, 1)[None], name, image_window.name)
            logits = _blocks(found, self.stride)
            if self.bits == 16 and np.abs(logits).max() > np.finfo(np.float16).max:
                raise DataError(
                    f"teacher {name} gives logits up to {np.abs(logits).max():g} on {image_window.name}, and 16 bits "
                    f"hold up to {np.finfo(np.float16).max:g}. Use --cache-bits 8, which scales them."
                )
            try:
                with written_whole(self.path(image_window)) as part:
                    save_file(self._pack(logits), part, metadata={KEY: UNKNOWN})
                    seal_safetensors(part)
            except DiskFull:
                if self.missing([image_window]):  # otherwise another process has written the same logits meanwhile
                    raise

    def _pack(self, logits: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        if self.bits == 16:
            return {"logits": logits.astype(np.float16)}
        low = logits.min(axis=(0, 1))
        step = np.maximum((logits.max(axis=(0, 1)) - low) / 255, 1e-6).astype(np.float32)
        return {"logits": np.rint((logits - low) / step).astype(np.uint8), "step": step, "low": low}

    def open(self, image_window: ImageWindow) -> CachedLogits:
        """Open the cached logits (H, W, C) of an image. Only the parts that are sliced are read.

        Raises:
            DataError: there is no file, it is damaged, or what it holds is not of this size.
        """
        logits = CachedLogits(self.path(image_window))
        height, width = image_window.size
        logits.check(-(-height // self.stride), -(-width // self.stride), self.bits)
        return logits

    def what_else(self) -> str:
        """Describe, for a message, what the folder holds if the files of some images are missing."""
        if self.own_folder.is_dir():
            return "it holds this teacher's logits of other images"
        if self.folder.is_dir() and any(self.folder.iterdir()):
            return "it holds the logits of another teacher, or in other bits, symmetry or resolution"
        return "it is empty"


def _blocks(logits: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Average logits (H, W, C) float32 over blocks of side x side pixels. The last blocks repeat the image's edge."""
    if side == 1:
        return logits
    height, width = logits.shape[:2]
    padded = np.pad(logits, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    means = block_means(torch.from_numpy(padded).permute(2, 0, 1), side)
    return np.asarray(means.permute(1, 2, 0).numpy())


@torch.no_grad()
def whole_logits(teacher: nn.Module, image: npt.NDArray[Any], device: torch.device) -> npt.NDArray[np.float32]:
    """Compute the logits of a whole image in overlapping tiles, and keep the core of each tile.

    Args:
        teacher: images (1, B, h, w) to logits (1, C, h, w).
        image: (H, W, B), full resolution.
        device: the device on which the teacher runs. The teacher must be there already.

    Returns:
        (H, W, C) float32.
    """
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


def symmetric_logits(teacher: nn.Module, image: npt.NDArray[Any], device: torch.device) -> npt.NDArray[np.float32]:
    """Return the mean of `whole_logits` over the 8 symmetries of the square, each transformed back.

    The arguments and the result are those of `whole_logits`. The time is 8 times as long.
    """
    total: npt.NDArray[np.float32] | None = None
    for symmetry in range(SYMMETRIES):
        found = transform_back(whole_logits(teacher, transform(image, symmetry), device), symmetry)
        total = found if total is None else total + found
    assert total is not None, "there are 8 symmetries"
    total /= SYMMETRIES
    return total


def mirror_agreement(cache: LogitCache, image_window: ImageWindow, teacher: nn.Module, device: torch.device) -> float:
    """Measure how well the cached logits of an image agree with the teacher's logits of the mirrored image.

    Args:
        cache: a cache that holds the image.
        image_window: the image.
        teacher: the teacher of the cache.
        device: the device on which the teacher runs. The teacher must be there already.

    Returns:
        The fraction, 0 to 1, of pixels (of blocks with a stride) where both have the same most likely class.
    """
    image = image_window.read(cache.input_spec)[0]
    live = transform_back(whole_logits(teacher, transform(image, 4), device), 4)
    cached = cache.open(image_window)
    logits = cached.whole()
    return float((_blocks(live, cache.stride).argmax(axis=2) == logits.argmax(axis=2)).mean())
