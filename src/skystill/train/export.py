"""From torch to a model file, checked before its name appears."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skystill.classes import ClassMap
from skystill.errors import SkystillError
from skystill.model_file import ModelInfo, open_session
from skystill.run_folder import written_whole
from skystill.train.models import build_network, count_parameters, in_layout

TOLERANCE = 1e-4
"""Largest difference between torch's and ONNX Runtime's logits, relative to the largest logit (at least 1)."""
_OPSET = 18  # the oldest that torch's exporter writes without conversion


class ExportDiffers(SkystillError):
    """The exported model does not compute what the network computes: a fault of ours, or of the exporter."""

    def __init__(self, path: Path, difference: float) -> None:
        super().__init__(
            f"{path} was not written: its logits differ from torch's by {difference:.2g} (at most {TOLERANCE:g})."
        )


def export_network(network: nn.Module, name: str, classes: ClassMap, path: Path) -> ModelInfo:
    """Write a network as a model file.

    Args:
        network: on the CPU; put in eval mode.
        name: its name in the table of sizes.
        classes: its classes.
        path: the file, which appears only when its logits equal torch's.

    Raises:
        ExportDiffers: they do not.
        DiskFull: the file cannot be written.
    """
    network = in_layout(network.eval(), torch.contiguous_format)
    info = ModelInfo(classes, name, count_parameters(network), multiply_adds_per_megapixel(name, len(classes)))
    example = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: free, 2: free, 3: free},),
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, info.to_metadata())
    with written_whole(path) as part:
        part.write_bytes(model.SerializeToString())
        _check(network, part, path)
    return info


def multiply_adds_per_megapixel(name: str, num_classes: int) -> int:
    """Multiplications with addition for 10^6 pixels, counted on shapes alone (no memory is touched)."""
    side = 1024
    with torch.device("meta"):
        network = build_network(name, num_classes).eval()
        images = torch.empty(1, 3, side, side, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return round(int(counter.get_total_flops()) / 2 / side**2 * 1e6)


def _check(network: nn.Module, part: Path, path: Path) -> None:
    """Compare on an odd size, where padding and cropping would show."""
    images = torch.randint(0, 256, (1, 3, 75, 141), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images).numpy()
    found = open_session(part).run(None, {"image": images.numpy()})[0]
    difference = float(np.abs(expected - found).max() / max(1.0, np.abs(expected).max()))
    if not difference <= TOLERANCE:
        raise ExportDiffers(path, difference)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its progress, of torchvision's absence, and of its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
