"""Export of a torch network to a model file. The file appears under its name only after its logits are checked."""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from skystill.classes import ClassMap
from skystill.errors import SettingsError, SkystillError
from skystill.model.file import ModelInfo, open_session
from skystill.model.ir import lower_ir, model_bytes
from skystill.raster.input_spec import InputSpec
from skystill.raster.scratch import scratch_folder
from skystill.run_folder import written_whole
from skystill.train.libraries.imports import name_library_errors
from skystill.train.networks.blocks import to_memory_format
from skystill.train.networks.contract import NetworkContractError, check_network, margin_of
from skystill.train.networks.examples import input_spec_of, noise_images
from skystill.train.networks.table import count_parameters

TOLERANCE = 1e-4
"""Largest allowed difference between the logits of torch and of ONNX Runtime, relative to the largest absolute logit
(at least 1)."""
_OPSET = 18  # the oldest opset that torch's exporter writes without conversion


class ExportDiffers(SkystillError):
    """The exported model does not compute what the network computes. This is a bug in SkyStill or in the exporter."""

    def __init__(self, path: Path, difference: float) -> None:
        super().__init__(
            f"{path} was not written: its logits differ from torch's by {difference:.2g} (at most {TOLERANCE:g})."
        )


def export_network(
    network: nn.Module, info: ModelInfo, path: Path, images: Sequence[npt.NDArray[Any]] = ()
) -> ModelInfo:
    """Write a network as a model file.

    Args:
        network: on the CPU. It is put in eval mode.
        info: the metadata of the file.
        path: the file. It appears only if its logits equal torch's, to within `TOLERANCE`.
        images: (H, W, B), as the network is fed. The logits are compared on these images and on one of noise.

    Returns:
        `info`, unchanged.

    Raises:
        NetworkContractError: the network breaks a clause of the contract. The clause on its field is not checked.
        ExportDiffers: the logits of the file differ from torch's.
        DiskFull: the file cannot be written.
    """
    check_network(network, info.network, margin=None)
    network = to_memory_format(network.eval(), torch.contiguous_format)
    fed = input_spec_of(network)
    example = noise_images(fed, 2, 96, 128)
    free = torch.export.Dim.DYNAMIC
    model = to_onnx(network, example, _OPSET, {0: free, 2: free, 3: free})
    if fed.is_three_bytes:
        _take_bytes(model, info.network, fed)
    lower_ir(model)
    onnx.helper.set_model_props(model, info.to_metadata())
    with written_whole(path) as part:
        part.write_bytes(model_bytes(model))
        _check(network, part, path, images)
    return info


def check_export(network: nn.Module, name: str, classes: ClassMap) -> None:
    """Check that a network can be written as a model file, before it is trained.

    Args:
        network: on the CPU. It is left in training mode.
        name: its name.
        classes: the classes of its logits.

    Raises:
        SettingsError: it cannot be written, or what is written computes something else.
    """
    what = "it cannot be written as a model file for images of any size. Take another encoder or architecture"
    with scratch_folder() as scratch, name_library_errors(f"network {name}", what, SettingsError):
        try:
            export_network(network, describe(name, network, classes), scratch / "trial.onnx")
        except ExportDiffers as error:
            raise RuntimeError(str(error)) from error
    network.train()


def describe(name: str, network: nn.Module, classes: ClassMap, data: str = "") -> ModelInfo:
    """Return the metadata for the model file of a network.

    Args:
        name: the name of the network.
        network: its parameters and multiply-adds are counted.
        classes: the classes of its logits.
        data: the name of the training data.
    """
    work, parameters, fed = multiply_adds_per_megapixel(network), count_parameters(network), input_spec_of(network)
    return ModelInfo(classes, name, parameters, work, overlap=2 * margin_of(network), data=data, input_spec=fed)


def to_onnx(network: nn.Module, example: Tensor, opset: int, free: dict[int, Any] | None = None) -> onnx.ModelProto:
    """Convert a network into an ONNX graph with the input `image` and the output `logits`.

    Args:
        network: in eval mode, on the CPU.
        example: (N, B, H, W), an input with the type of the graph's input.
        opset: version of the ONNX operator set.
        free: axes of the input whose size is free, as torch.export takes them. None fixes all axes to the size of
            `example`.
    """
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(free,) if free else None,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    del model.graph.value_info[:]
    return model


def _take_bytes(model: onnx.ModelProto, name: str, fed: InputSpec) -> None:
    """Replace `Normalize` (convert, subtract, divide) by one DequantizeLinear, in place.

    It computes the same numbers in one pass. An INT8 graph then starts from the bytes of the image without any
    conversion (quantize.py).

    Args:
        model: the graph.
        name: the name of the network, for the message.
        fed: what the network is fed, three bands of bytes.

    Raises:
        NetworkContractError: the graph does not contain exactly one chain of Cast, Sub and Div.
    """
    nodes = model.graph.node
    made_by = {output: node for node in nodes for output in node.output}
    chain = [
        (cast, subtract, divide)
        for divide in nodes
        if divide.op_type == "Div"
        and (subtract := made_by.get(divide.input[0])) is not None
        and (cast := made_by.get(subtract.input[0])) is not None
        and (cast.op_type, subtract.op_type) == ("Cast", "Sub")
    ]
    if len(chain) != 1:
        raise NetworkContractError(
            name, [f"normalize: the graph holds {len(chain)} chains of Cast, Sub and Div; exactly one is expected."]
        )
    cast, subtract, divide = chain[0]
    place = list(nodes).index(cast)
    normalize = onnx.helper.make_node(
        "DequantizeLinear", [cast.input[0], "image_scale", "image_zero"], [divide.output[0]], name="normalize"
    )
    for node in chain[0]:
        nodes.remove(node)
    nodes.insert(place, normalize)
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(1 / fed.unit, np.float32), "image_scale"),
            onnx.numpy_helper.from_array(np.array(fed.zero, np.uint8), "image_zero"),
        ]
    )


def multiply_adds_per_megapixel(network: nn.Module) -> int:
    """Count the multiply-adds of a network for 10^6 pixels.

    They are counted from shapes on the meta device. Nothing is computed, and the network is not changed.
    """
    side = 1024
    shapes = copy.deepcopy(network).to("meta").eval()
    images = torch.empty(1, len(input_spec_of(network)), side, side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(images)
    return round(int(counter.get_total_flops()) / 2 / side**2 * 1e6)


def _check(network: nn.Module, part: Path, path: Path, images: Sequence[npt.NDArray[Any]]) -> None:
    """Compare the logits of a file with the network's, on noise and on images.

    The noise has an odd size, on which errors of padding and cropping become visible.

    Args:
        network: in eval mode, on the CPU.
        part: the file under its temporary name.
        path: its final name, for the message.
        images: (H, W, B), as the network is fed.

    Raises:
        ExportDiffers: the largest relative difference is above `TOLERANCE`.
    """
    noise = noise_images(input_spec_of(network), 1, 75, 141)[0].permute(1, 2, 0).numpy()
    session = open_session(part)
    for image in (noise, *images):
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
        with torch.no_grad():
            expected = network(torch.from_numpy(planes)).numpy()
        found = session.run(None, {"image": planes})[0]
        difference = float(np.abs(expected - found).max() / max(1.0, np.abs(expected).max()))
        if not difference <= TOLERANCE:
            raise ExportDiffers(path, difference)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages on its progress, on a missing torchvision, and on its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
