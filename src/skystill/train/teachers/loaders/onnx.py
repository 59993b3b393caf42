"""Loader of ONNX files of any origin, which run in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skystill.errors import CheckpointError
from skystill.model.external import check_external_data, model_files
from skystill.model.file import check_digest, is_foreign, read_info
from skystill.model.trial import try_once
from skystill.parsing import parse_json
from skystill.raster.input_spec import InputSpec
from skystill.train.libraries.imports import name_library_errors
from skystill.train.teachers.loaders.loader import Loaded, Origin
from skystill.train.teachers.loaders.wrappers import ChannelsLast, fixed_or_free

_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider",
              "CPUExecutionProvider")  # fmt: skip
"""Parts of ONNX Runtime that compute a graph. Others load engines or libraries that a file brings or names."""

_KINDS = {
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(float16)": np.float16,
}


class OnnxNetwork(nn.Module):
    """An ONNX file in ONNX Runtime, on the CPU, or on a GPU if the GPU build of ONNX Runtime is installed.

    Args:
        path: the file. It has one input (N, B, H, W) or (N, H, W, B), and its first output is (N, C, h, w) or
            (N, h, w, C). If N is a fixed number, the images are run one by one.

    Raises:
        ModelFileError: the file takes weights from a file outside its folder, or fails as `try_once` says.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime as ort  # 20 MB that training without an ONNX teacher does not need

        check_digest(path)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it would hold the memory of the largest image permanently
        check_external_data(path)
        try_once(path)
        providers = [name for name in _PROVIDERS if name in ort.get_available_providers()]
        self.session = ort.InferenceSession(path, options, providers=providers)
        self.input = self.session.get_inputs()[0]
        self.dtype: Any = _KINDS.get(self.input.type, np.float32)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to outputs on the device of the images."""
        planes = np.ascontiguousarray(images.cpu().numpy().astype(self.dtype))
        batch = self.input.shape[0]
        parts = [planes] if not isinstance(batch, int) else [planes[i : i + 1] for i in range(len(planes))]
        found = [self.session.run(None, {self.input.name: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(found)).to(images.device)


def load_onnx(origin: Origin) -> Loaded:
    """Load an ONNX file of any origin.

    Its input scale is 0..255 if its input is uint8 or the file is SkyStill's own, otherwise 0..1.

    Raises:
        CheckpointError: ONNX Runtime cannot open the file, or its input is neither (N, B, H, W) nor (N, H, W, B) with
            the bands that it is fed.
    """
    path = origin.path
    with name_library_errors(f"teacher {path}", "ONNX Runtime cannot open it"):
        network = OnnxNetwork(path)
    shape, bands = network.input.shape, len(origin.input_spec)
    is_last = len(shape) == 4 and shape[1] != bands and shape[3] == bands
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != bands and not is_last):
        raise CheckpointError(
            f"teacher {path}: its input is {shape}; an image network that is fed {origin.input_spec.labels} takes (N, "
            f"{bands}, H, W) or (N, H, W, {bands}). Say which bands it is fed: {path}?bands=red,green,blue,nir."
        )
    own = "multiply_adds_per_megapixel" in network.session.get_modelmeta().custom_metadata_map
    wants = "0..255" if network.dtype in (np.uint8, np.uint16, np.int16) or own else "0..1"
    height, width = shape[1:3] if is_last else shape[2:4]
    return Loaded(fixed_or_free(ChannelsLast(network) if is_last else network, height, width), wants)


def onnx_files(origin: Origin) -> list[Path]:
    """Return the file, and the files that hold its weights: what the exporter of torch writes beside it by default."""
    return model_files(origin.path)


def onnx_class_names(origin: Origin) -> tuple[str, ...] | None:
    """Return the class names in the metadata of an ONNX file of SkyStill or Deepness, or None if it has none.

    They are in the order of their numbers, whatever the order in the file is.
    """
    path = origin.path
    with name_library_errors(f"teacher {path}", "ONNX Runtime cannot open it"):
        said = OnnxNetwork(path).session.get_modelmeta().custom_metadata_map
        names = parse_json(said["class_names"]) if "class_names" in said else None
    if not isinstance(names, dict):
        return None
    numbered = all(key.isdecimal() for key in names)
    return tuple(str(names[key]) for key in (sorted(names, key=int) if numbered else names))


def onnx_input_spec(origin: Origin) -> InputSpec | None:
    """Return what a file of SkyStill is fed, or None for a file of another program.

    Raises:
        ModelFileError: its metadata is damaged.
    """
    path = origin.path
    with name_library_errors(f"teacher {path}", "ONNX Runtime cannot open it"):
        session = OnnxNetwork(path).session
    return None if is_foreign(session) else read_info(session, path).input_spec
