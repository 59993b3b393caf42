"""Cached logits whose file declares another size or form than the image has are refused when they are opened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn

from skystill.data.unlabeled import ImageWindow
from skystill.errors import DataError
from skystill.train.teachers.logit_cache import LogitCache

SCALE = {"step": np.ones(2, np.float32), "low": np.zeros(2, np.float32)}


class TwoClasses(nn.Module):
    """Logits are the first band and what is left of 255."""

    name = "two"

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, :1].float()
        return torch.cat([first, 255 - first], dim=1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.new("RGB", (7, 5), (40, 0, 0)).save(path)  # 5 rows, 7 columns
    return path


@pytest.mark.parametrize(("bits", "stride", "size"), [(16, 1, (5, 7)), (8, 1, (5, 7)), (8, 2, (3, 4)), (16, 4, (2, 2))])
@pytest.mark.parametrize("bounds", [None, (0, 5, 0, 7)])
def test_what_is_filled_is_opened(bits: int, stride: int, size: tuple[int, int], bounds: Any, image: Path) -> None:
    cache = LogitCache(image.parent / "cache", "k" * 24, symmetric=False, bits=bits, stride=stride)
    window = ImageWindow(image, bounds)
    cache.fill([window], TwoClasses(), torch.device("cpu"))
    logits = cache.open(window)
    assert logits.shape == (*size, 2)
    values = logits[:, :] * logits.step + logits.low
    assert np.allclose(values[0, 0], [40, 215], atol=0.1)


@pytest.mark.parametrize(
    ("bits", "tensors"),
    [
        (16, {"logits": np.zeros((5, 8, 2), np.float16)}),
        (16, {"logits": np.zeros((7, 5, 2), np.float16)}),  # turned
        (16, {"logits": np.zeros((2, 5, 7), np.float16)}),  # channels first
        (16, {"logits": np.zeros((5, 7), np.float16)}),
        (16, {"logits": np.zeros((5, 7, 0), np.float16)}),
        (16, {"logits": np.zeros((1, 5, 7, 2), np.float16)}),
        (16, {"logits": np.zeros((5, 7, 2), np.float32)}),
        (16, {"logits": np.zeros((5, 7, 2), np.uint8), **SCALE}),
        (8, {"logits": np.zeros((5, 7, 2), np.float16)}),
        (8, {"logits": np.zeros((5, 7, 2), np.uint8)}),
        (8, {"logits": np.zeros((5, 7, 3), np.uint8), **SCALE}),
        (8, {"logits": np.zeros((5, 7, 2), np.uint8), **SCALE, "low": np.zeros(2, np.float64)}),
        (8, {"logits": np.zeros((5, 7, 2), np.uint8), **SCALE, "step": np.ones((2, 1), np.float32)}),
    ],
)
def test_another_size_or_form_is_refused_by_name(bits: int, tensors: dict[str, Any], image: Path) -> None:
    cache = LogitCache(image.parent / "cache", "k" * 24, symmetric=False, bits=bits)
    path = cache.path(ImageWindow(image))
    path.parent.mkdir(parents=True)
    save_file(tensors, path)
    with pytest.raises(DataError, match=r"its image takes \[5, 7, classes\] in \d+ bits\. Delete") as raised:
        cache.open(ImageWindow(image))
    assert str(path) in str(raised.value)
