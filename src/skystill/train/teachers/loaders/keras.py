"""Loader of Keras models, which run on Keras's torch backend."""

import os
from typing import Any

from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.train.libraries.archives import check_archive
from skystill.train.libraries.imports import import_library, name_library_errors
from skystill.train.teachers.loaders.loader import Loaded, Origin
from skystill.train.teachers.loaders.wrappers import ChannelsLast, fixed_or_free

_SAFE = (3, 13, 2)
"""First version whose safe mode holds for all files: CVE-2025-9905 (.h5), 2026-1462 (TFSMLayer), 2026-1669 (HDF5)."""


def load_keras(origin: Origin) -> Loaded:
    """Load a Keras model from a .keras file, or from the older formats .h5 and .hdf5.

    The model is not compiled: its optimiser and its losses, custom ones included, are ignored. Its input scale is
    0..255 if it has a Rescaling or Normalization layer, otherwise 0..1.

    Raises:
        SettingsError: Keras is not installed, is older than `_SAFE`, or is already loaded with another backend than
            torch.
        CheckpointError: Keras cannot load the file in safe mode, it unpacks to too much, or its input does not have the
            channels that it is fed.
    """
    path = origin.path
    check_archive(path)
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = import_library("keras", "keras")
    if keras.backend.backend() != "torch":
        raise SettingsError(
            f"teacher {path}: Keras is loaded with the backend {keras.backend.backend()}; set KERAS_BACKEND=torch."
        )
    numbers = tuple(int(part) if part.isdigit() else 0 for part in keras.__version__.split(".")[:3])
    if numbers < _SAFE:
        raise SettingsError(
            f"teacher {path}: Keras {keras.__version__} can run code from a file, or read other files, in safe "
            f"mode too. This was mended in {'.'.join(map(str, _SAFE))}: pip install --upgrade keras"
        )
    with name_library_errors(f"teacher {path}", "Keras cannot load it in safe mode"):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        _, height, width, channels = model.input_shape
    if channels not in (None, len(origin.input_spec)):
        raise CheckpointError(
            f"teacher {path}: its input is {model.input_shape}; an image network that is fed "
            f"{origin.input_spec.labels} takes (N, H, W, {len(origin.input_spec)}). Say which bands it is fed: "
            f"{path}?bands=red,green,blue,nir."
        )
    layers = {type(layer).__name__ for layer in model.layers}
    return Loaded(
        fixed_or_free(ChannelsLast(_Called(model)), height, width),
        "0..255" if layers & {"Rescaling", "Normalization"} else "0..1",
    )


class _Called(nn.Module):
    """Adapter of a Keras model, which is told at each call that it is not in training."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - Keras has no types
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, H, W, B), converted to float, to outputs (N, h, w, C)."""
        found: Tensor = self.model(images.float(), training=False)
        return found
