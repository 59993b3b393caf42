"""Networks that other programs saved, loaded without running code of theirs, each as images to logits (N, C, h, w)."""

import importlib
import inspect
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError, SkystillError
from skystill.train.teachers.teacher import INPUT_SCALES, InputScale


@dataclass(frozen=True)
class Loaded:
    """A network, and what it wants.

    Args:
        network: images to logits or probabilities.
        wants: name of its input scale.
        multiple: H and W must divide by this.
        scale: its input scale where it has no name.
    """

    network: nn.Module
    wants: str = "0..1"
    multiple: int = 1
    scale: InputScale | None = None

    @property
    def input_scale(self) -> InputScale:
        """What pixels it wants."""
        return self.scale or INPUT_SCALES[self.wants]


@contextmanager
def name_library_errors(name: object, what: str) -> Iterator[None]:
    """Turn whatever a foreign library raises into one message.

    Raises:
        CheckpointError: with the library's own words.
    """
    try:
        yield
    except (SkystillError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # any library may raise anything on a file that is not what it says
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"teacher {name}: {what} ({type(error).__name__}: {reason[:300]}).") from error


class FixedSize(nn.Module):
    """A network that takes one size only, run in tiles of it over images of any size; smaller images are padded.

    Args:
        network: (N, 3, height, width) to (N, C, height, width).
        height, width: that size in pixels.
    """

    def __init__(self, network: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.network, self.height, self.width = network, height, width

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H, W)."""
        height, width = images.shape[2:]
        below, right = max(0, self.height - height), max(0, self.width - width)
        padded = F.pad(images.float(), (0, right, 0, below), mode="replicate") if below or right else images
        result: Tensor | None = None
        for top, rows, rows_in in _cuts(padded.shape[2], self.height):
            for left, columns, columns_in in _cuts(padded.shape[3], self.width):
                found = self.network(padded[:, :, top : top + self.height, left : left + self.width])
                if found.shape[2:] != (self.height, self.width):
                    found = F.interpolate(found.float(), size=(self.height, self.width), mode="bilinear")
                if result is None:
                    result = found.new_empty(found.shape[0], found.shape[1], *padded.shape[2:])
                result[:, :, rows, columns] = found[:, :, rows_in, columns_in]
        assert result is not None
        return result[:, :, :height, :width]


def _cuts(size: int, tile: int) -> list[tuple[int, slice, slice]]:
    """Starts of tiles that overlap by a quarter or more, and what each owns, in the image and in the tile."""
    count = 1 if size == tile else 1 + -(-(size - tile) // max(1, tile * 3 // 4))
    starts = [round(index * (size - tile) / max(1, count - 1)) for index in range(count)]
    ends = [(start + tile + following) // 2 for start, following in pairwise(starts)]
    owned = list(zip([0, *ends], [*ends, size], strict=True))
    return [(s, slice(a, b), slice(a - s, b - s)) for s, (a, b) in zip(starts, owned, strict=True)]


class OnnxNetwork(nn.Module):
    """A model file in ONNX Runtime: on the CPU, or on a GPU where its GPU build is installed.

    Args:
        path: the file: one input (N, 3, H, W), the first output (N, C, h, w).
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime as ort  # 20 MB that training need not have

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it would keep the largest image's memory for good
        self.session = ort.InferenceSession(path, options, providers=ort.get_available_providers())
        self.input = self.session.get_inputs()[0]
        if "uint8" in self.input.type:
            self.dtype: Any = np.uint8
        else:
            self.dtype = np.float16 if "float16" in self.input.type else np.float32

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, h, w)."""
        planes = np.ascontiguousarray(images.cpu().numpy().astype(self.dtype))
        batch = self.input.shape[0]
        parts = [planes] if not isinstance(batch, int) else [planes[i : i + 1] for i in range(len(planes))]
        found = [self.session.run(None, {self.input.name: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(found)).to(images.device)


def load_onnx(path: Path) -> Loaded:
    """An ONNX file of any maker. Its input is 0..255 where it is bytes or SkyStill's own, otherwise taken as 0..1."""
    with name_library_errors(path, "ONNX Runtime cannot open it"):
        network = OnnxNetwork(path)
    shape = network.input.shape
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise CheckpointError(f"teacher {path}: its input is {shape}; an image network takes (N, 3, H, W).")
    own = "multiply_adds_per_megapixel" in network.session.get_modelmeta().custom_metadata_map
    wants = "0..255" if network.dtype == np.uint8 or own else "0..1"
    return Loaded(fixed_or_free(network, shape[2], shape[3]), wants)


def fixed_or_free(network: nn.Module, height: object, width: object) -> nn.Module:
    """The network, in tiles where its height and width are given numbers."""
    return FixedSize(network, height, width) if isinstance(height, int) and isinstance(width, int) else network


def onnx_class_names(path: Path) -> tuple[str, ...] | None:
    """The class names that an ONNX file carries, SkyStill's or Deepness's."""
    with name_library_errors(path, "ONNX Runtime cannot open it"):
        said = OnnxNetwork(path).session.get_modelmeta().custom_metadata_map
        names = json.loads(said["class_names"]) if "class_names" in said else None
    return tuple(str(name) for name in names.values()) if isinstance(names, dict) else None


def load_program(path: Path) -> Loaded:
    """A program saved by torch.export. torch would unpickle objects in it; files that hold such are refused."""
    _refuse_pickles(path)
    with name_library_errors(path, "torch.export cannot load it"):
        program = torch.export.load(path)
        network = program.module()
        shape = next(iter(program.graph_signature.user_inputs))
        sizes = next(n.meta["val"].shape for n in program.graph.nodes if n.name == shape)
    height, width = (size if isinstance(size, int) else None for size in sizes[2:])
    frozen = _Called(network)
    return Loaded(fixed_or_free(_one_by_one(frozen, sizes[0]), height, width))


class _Called(nn.Module):
    """An exported program, which knows no train and eval."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._program = [program]  # in a list: not a submodule, whose train() it would refuse
        for name, parameter in program.named_parameters():
            self.register_parameter(name.replace(".", "_"), parameter)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to what the program gives."""
        found: Tensor = self._program[0](images.float())
        return found


class _OneByOne(nn.Module):
    """A network that takes one image at a time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, h, w)."""
        return torch.cat([self.network(images[index : index + 1]) for index in range(len(images))])


def _one_by_one(network: nn.Module, batch: object) -> nn.Module:
    return _OneByOne(network) if isinstance(batch, int) else network


def _refuse_pickles(path: Path) -> None:
    """Refuse an archive with objects that only unpickling would open.

    Raises:
        CheckpointError: it has such, or is no archive.
    """
    with name_library_errors(path, "it is no torch.export archive"), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.rsplit("/", 1)[-1].startswith(("custom_obj", "opaque_obj")):
                raise CheckpointError(f"teacher {path}: {name} in it holds a pickled object, which could run code.")
            if content.startswith((b"PK\x03\x04", b"\x80")):
                try:
                    torch.load(io.BytesIO(content), weights_only=True)
                except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                    raise CheckpointError(
                        f"teacher {path}: {name} in it loads only by unpickling, which could run code."
                    ) from error


def load_keras(path: Path) -> Loaded:
    """A Keras model: .keras, or the older .h5 and .hdf5. What it was compiled with, custom losses too, is left out."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = _library("keras", "keras")
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


def load_smp(target: str, sizes: dict[str, object], weights: Path) -> Loaded:
    """segmentation_models_pytorch: target ARCHITECTURE/ENCODER."""
    smp = _library("segmentation_models_pytorch", "segmentation-models-pytorch")
    architecture, _, encoder = target.partition("/")
    if not hasattr(smp, architecture):
        raise SettingsError(f"teacher smp:{target}: segmentation_models_pytorch has no {architecture}.")
    with name_library_errors(f"smp:{target}", "it cannot be built"):
        network = getattr(smp, architecture)(encoder_name=encoder or "resnet34", encoder_weights=None, **sizes)
    _fill(network, weights, f"smp:{target}")
    return Loaded(network, "imagenet", multiple=32)


def load_torchvision(target: str, sizes: dict[str, object], weights: Path) -> Loaded:
    """A segmentation model of torchvision by name."""
    models = _library("torchvision.models", "torchvision")
    state = read_state(weights, f"torchvision:{target}")
    auxiliary = any(name.startswith("aux_classifier.") for name in state)
    sizes = {("num_classes" if name == "classes" else name): value for name, value in sizes.items()}
    with name_library_errors(f"torchvision:{target}", "it cannot be built"):
        maker = models.get_model_builder(target)
        if "aux_loss" in inspect.signature(maker).parameters:
            sizes["aux_loss"] = auxiliary
        network = maker(weights=None, weights_backbone=None, **sizes)
    _fill(network, weights, f"torchvision:{target}")
    return Loaded(network, "imagenet")


def load_hf(folder: Path) -> Loaded:
    """A semantic segmentation model of transformers in a folder that save_pretrained wrote; safetensors only."""
    transformers = _library("transformers", "transformers")
    with name_library_errors(f"hf:{folder}", "transformers cannot load it"):
        network = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    wants = InputScale(255.0, INPUT_SCALES["imagenet"].mean, INPUT_SCALES["imagenet"].std)
    said = folder / "preprocessor_config.json"
    if said.is_file():
        wants = _hf_scale(json.loads(said.read_text(encoding="utf-8")))
    return Loaded(network, multiple=32, scale=wants)


def _hf_scale(said: dict[str, Any]) -> InputScale:
    divisor = 1 / float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if not said.get("do_normalize", True):
        return InputScale(divisor)
    imagenet = INPUT_SCALES["imagenet"]
    return InputScale(divisor, tuple(said.get("image_mean", imagenet.mean)), tuple(said.get("image_std", imagenet.std)))


def hf_class_names(folder: Path) -> tuple[str, ...] | None:
    """The class names in a folder's config.json."""
    with name_library_errors(f"hf:{folder}", "its config.json cannot be read"):
        names: dict[str, str] = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label", {})
        found = tuple(names[key] for key in sorted(names, key=int))
    return None if not found or all(name == f"LABEL_{index}" for index, name in enumerate(found)) else found


def read_state(path: Path, name: str) -> dict[str, Tensor]:
    """Weights from safetensors, or from a file of torch.save that needs no unpickling of objects.

    A Lightning checkpoint's "state_dict" and a "model." before all names are seen through.

    Raises:
        CheckpointError: it holds no weights, or loads only by unpickling.
    """
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"teacher {name}: {path} holds more than weights, and loading it could run code. Save its state_dict: "
            "torch.save(model.state_dict(), FILE), or as safetensors."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"teacher {name}: {path} cannot be read ({str(error).splitlines()[0]}).") from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"teacher {name}: {path} holds no state_dict.")
    state: dict[str, Tensor] = content
    for prefix in ("module.", "model."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _fill(network: nn.Module, weights: Path, name: str) -> None:
    try:
        network.load_state_dict(read_state(weights, name))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(f"teacher {name}: {weights} is of another network: {' '.join(lines)[:400]}") from error


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise SettingsError(f"this teacher needs {package}, which is not installed: pip install {package}") from error
