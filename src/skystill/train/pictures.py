"""Pictures in the run folder: the first training crops with their labels, and validation images with predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from skystill.classes import ClassMap, Labels
from skystill.data.unlabeled import ImageWindow
from skystill.raster.band_names import wanted_bands
from skystill.raster.colors import Bytes
from skystill.raster.input_spec import InputSpec
from skystill.raster.saving import save_picture
from skystill.raster.shown import read_shown, shown_places
from skystill.train.batches.batches import TrainBatches
from skystill.train.batches.images import TrainingImages
from skystill.train.loop.meter import most_likely

_SIDE = 320  # largest side of an image in a picture, and of the middle of a validation image that is shown, in pixels
_CROPS, _IMAGES = 8, 4
_GAP = 4  # white pixels between images


class RunPictures:
    """Writes `training.png` and `validation.png` into a folder.

    Labels have the colours of the classes. Void pixels have black and white stripes.

    Args:
        folder: where the pictures are written.
        classes: the classes and their colours.
        input_spec: what the network is fed.
        show: the bands that are shown, as `--show` names them; None finds red, green and blue.
    """

    def __init__(self, folder: Path, classes: ClassMap, input_spec: InputSpec, show: str | None = None) -> None:
        self.training, self.validation = folder / "training.png", folder / "validation.png"
        self.classes, self.input_spec = classes, input_spec
        self._show = wanted_bands(show, "--show")
        self._cells: list[tuple[npt.NDArray[Any], Bytes, Labels]] | None = None

    def write_training(self, batches: TrainBatches) -> None:
        """Write the crops of the first steps as the network is fed them, each above its labels.

        An existing picture stays, because a resumed run would draw the same crops.

        Args:
            batches: the training batches.

        Raises:
            DiskFull: the picture cannot be written.
        """
        if self.training.exists():
            return
        images, labels = [], []
        for step in range(min(batches.steps_per_epoch, _CROPS)):
            batch = batches.batch(0, step)
            images += [image.permute(1, 2, 0).numpy() for image in batch.images]
            labels += [one.numpy().astype(np.uint8) for one in batch.common_labels]
            if len(images) >= _CROPS:
                break
        shown = list(zip((self._colors(image) for image in images[:_CROPS]), labels, strict=False))
        half = (len(shown) + 1) // 2 if len(shown) > _CROPS // 2 else len(shown)
        rows: list[list[Bytes]] = []
        for part in (shown[:half], shown[half:]):
            rows += [[image for image, _ in part], [self.classes.paint_striped(one) for _, one in part]] if part else []
        _write_sheet(self.training, rows)

    def write_validation(self, network: nn.Module, images: TrainingImages) -> None:
        """Write the middle of up to four validation images, spread evenly, with the labels and the prediction.

        Args:
            network: takes images (1, B, H, W) and returns logits (1, C, H, W). It is in eval mode.
            images: the validation images.

        Raises:
            DiskFull: the picture cannot be written.
        """
        if self._cells is None:
            count = min(_IMAGES, len(images))
            self._cells = [self._cell(images, index * len(images) // count) for index in range(count)]
        device = next(network.parameters()).device
        rows = []
        for fed, shown, labels in self._cells:
            with torch.no_grad():
                logits = network(torch.from_numpy(fed).permute(2, 0, 1)[None].to(device))
            found = most_likely(logits)[0].cpu().numpy()
            rows.append([shown, self.classes.paint_striped(labels), self.classes.paint(found)])
        _write_sheet(self.validation, rows)

    def _cell(self, images: TrainingImages, index: int) -> tuple[npt.NDArray[Any], Bytes, Labels]:
        """Return the middle of an image: as the network is fed it, as it is shown, and its labels."""
        whole = images.once(index)
        image, labels = whole.image, whole.labels
        top, left = (max(0, size - _SIDE) // 2 for size in images.sizes[index])
        middle = np.s_[top : top + _SIDE, left : left + _SIDE]
        fed = np.ascontiguousarray(image[middle])
        if self.input_spec.is_colors and self._show is None:
            return fed, fed, labels[middle]
        # The bands that are shown may be others than those that the network is fed.
        return fed, self._as_shown(images.image_windows[index])[middle], labels[middle]

    def _as_shown(self, window: ImageWindow) -> Bytes:
        return read_shown(str(window.path), self._show, window.bounds)

    def _colors(self, image: npt.NDArray[Any]) -> Bytes:
        """Return what the network is fed (H, W, B) as a picture (H, W, 3) uint8, stretched if it is not bytes."""
        values = image[..., shown_places(self.input_spec, self._show)]
        if values.dtype != np.uint8:
            low, high = np.percentile(values.astype(np.float64), (2, 98))  # as raster/colors.py stretches
            values = np.clip((values.astype(np.float64) - low) * (255 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
        return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def _write_sheet(path: Path, rows: Sequence[Sequence[Bytes]]) -> None:
    """Write pictures (H, W, 3) in rows and columns as one PNG file. Of large ones only some pixels are taken."""
    small = [[_fit(picture) for picture in row] for row in rows]
    heights = [max(picture.shape[0] for picture in row) for row in small]
    width = max(picture.shape[1] for row in small for picture in row)
    columns = max(len(row) for row in small)
    sheet = np.full((sum(heights) + _GAP * (len(rows) - 1), (width + _GAP) * columns - _GAP, 3), 255, np.uint8)
    top = 0
    for row, height in zip(small, heights, strict=True):
        for column, picture in enumerate(row):
            left = column * (width + _GAP)
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        top += height + _GAP
    save_picture(Image.fromarray(sheet), path, compress_level=3)  # a third of the time of the default


def _fit(picture: Bytes) -> Bytes:
    step = -(-max(picture.shape[:2]) // _SIDE)
    return picture[::step, ::step]
