from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from skystill.classes import ClassMap
from skystill.data import find_pairs
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.raster.shown import shown_places
from skystill.train.batches.batches import CropSampler, TrainBatches
from skystill.train.batches.images import labeled_images
from skystill.train.pictures import RunPictures

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
CLASSES = ClassMap(("Roof", "Grass"), (RED, GREEN), (BLUE,))


class AllGrass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(images[:, 0].float()), torch.ones_like(images[:, 0].float())], dim=1)


@pytest.fixture
def data(tmp_path: Path, write_picture: Callable[..., Path]) -> Path:
    for index in range(2):
        write_picture(tmp_path / f"images/{index}.png", (10, 20, 30 + index), (40, 36))
        mask = np.zeros((36, 40, 3), np.uint8)
        mask[:], mask[:, 20:], mask[30:] = RED, GREEN, BLUE
        write_picture(tmp_path / f"masks/{index}.png", mask)
    return tmp_path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_validation_images_with_truth_and_prediction(data: Path) -> None:
    images = labeled_images(find_pairs(data).pairs, CLASSES)
    pictures = RunPictures(data / "pictures", CLASSES, RGB)
    pictures.write_validation(AllGrass().eval(), images)
    sheet = read(pictures.validation)
    assert sheet.shape == (2 * 36 + 4, 3 * 40 + 2 * 4, 3)
    assert (sheet[:36, :40] == (10, 20, 30)).all() and (sheet[40:, :40] == (10, 20, 31)).all()
    truth, prediction = sheet[:36, 44:84], sheet[:36, 88:128]
    assert (truth[:30, :20] == RED).all() and (truth[:30, 20:] == GREEN).all()
    assert {tuple(color) for color in truth[30:].reshape(-1, 3)} == {(0, 0, 0), (255, 255, 255)}  # void: stripes
    assert (prediction == GREEN).all()
    assert (sheet[36:40] == 255).all()
    assert [path.name for path in (data / "pictures").iterdir()] == ["validation.png"]


def test_training_crops_above_their_labels(data: Path) -> None:
    images = labeled_images(find_pairs(data).pairs, CLASSES)
    batches = TrainBatches(CropSampler(images, 32, 0.2, []), 4, seed=0, crops_per_image=8)
    pictures = RunPictures(data / "pictures", CLASSES, RGB)
    pictures.write_training(batches)
    sheet = read(pictures.training)
    assert sheet.shape == (4 * 32 + 3 * 4, 4 * 32 + 3 * 4, 3)  # eight crops: four images, their labels, and again
    first, second = batches.batch(0, 0), batches.batch(0, 1)
    for row, batch in ((0, first), (72, second)):
        for place in range(4):
            left = 36 * place
            assert (sheet[row : row + 32, left : left + 32] == batch.images[place].permute(1, 2, 0).numpy()).all()
            labels, drawn = batch.labels[place].numpy(), sheet[row + 36 : row + 68, left : left + 32]
            assert (drawn[labels == 0] == RED).all() and (drawn[labels == 1] == GREEN).all()
            assert {0, 765} >= set(drawn[labels == 255].sum(axis=-1).tolist())
    before = pictures.training.stat().st_mtime_ns
    pictures.write_training(batches)  # a resumed run
    assert pictures.training.stat().st_mtime_ns == before


def test_bands_that_are_shown() -> None:
    spec = InputSpec((Band("nir", 4), Band("blue", 3), Band("red", 1), Band("green", 2)), "uint16")
    assert shown_places(spec, None) == [2, 3, 1]
    assert shown_places(spec, ["nir", "red", "green"]) == [0, 2, 3]
    assert shown_places(spec, [4]) == [0]
    assert shown_places(spec, ["swir"]) == [2, 3, 1]  # the images have it, the network is not fed it
    assert shown_places(InputSpec((Band("", 1), Band("", 2)), "float32"), None) == [0]
    image = np.zeros((10, 10, 4), np.uint16)
    image[..., 2] = np.arange(100).reshape(10, 10) * 50
    seen = RunPictures(Path(), CLASSES, spec)._colors(image)
    assert (seen.dtype, seen.shape, seen[0, 0].tolist()) == (np.uint8, (10, 10, 3), [0, 0, 0])
    assert seen[..., 0].max() == 255 and (np.diff(seen[..., 0].ravel().astype(int)) >= 0).all()


def test_large_images_are_cut_and_crops_thinned(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    ramp = np.zeros((400, 700, 3), np.uint8)
    ramp[..., 0] = np.arange(700) // 3
    write_picture(tmp_path / "images/0.png", ramp)
    write_picture(tmp_path / "masks/0.png", np.broadcast_to(np.array(RED, np.uint8), (400, 700, 3)).copy())
    images = labeled_images(find_pairs(tmp_path).pairs, CLASSES)
    pictures = RunPictures(tmp_path / "pictures", CLASSES, RGB)
    pictures.write_validation(AllGrass().eval(), images)
    assert (read(pictures.validation)[:, :320] == ramp[40:360, 190:510]).all()
    pictures.write_training(TrainBatches(CropSampler(images, 352, 0.0, []), 1, seed=0, crops_per_image=1))
    assert read(pictures.training).shape == (2 * 176 + 4, 176, 3)
