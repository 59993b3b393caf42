"""Teachers from Keras, on its torch backend."""

import os
from typing import Any

from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.train.teachers.loaders.loader import Loaded, Origin, import_library, name_library_errors
from skystill.train.teachers.loaders.wrappers import fixed_or_free


def load_keras(origin: Origin) -> Loaded:
    """A Keras model: .keras, or the older .h5 and .hdf5. What it was compiled with, custom losses too, is left out."""
    path = origin.path
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = import_library("keras", "keras")
    if keras.backend.backend() != "torch":
        raise SettingsError(
            f"teacher {path}: Keras is loaded with the backend {keras.backend.backend()}; set KERAS_BACKEND=torch."
        )
    with name_library_errors(path, "Keras cannot load it in safe mode"):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        _, height, width, channels = model.input_shape
    if channels != 3:
        raise CheckpointError(f"teacher {path}: its input is {model.input_shape}; an image network takes (N, H, W, 3).")
    layers = {type(layer).__name__ for layer in model.layers}
    return Loaded(
        fixed_or_free(_ChannelsLast(model), height, width),
        "0..255" if layers & {"Rescaling", "Normalization"} else "0..1",
    )


class _ChannelsLast(nn.Module):
    """A Keras model: it takes and gives (N, H, W, C)."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - Keras carries no types
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, h, w)."""
        found: Tensor = self.model(images.permute(0, 2, 3, 1).float(), training=False)
        return found.permute(0, 3, 1, 2)
