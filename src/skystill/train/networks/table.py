"""The table of networks: builds a network with fresh weights from a name and sizes."""

import ast
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl

import torch
from torch import nn

from skystill.errors import SettingsError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.kite import Kite
from skystill.train.networks.library import FORMS, is_library, parse_library
from skystill.train.networks.library_networks import build_library
from skystill.train.networks.lite import Lite, LiteUNet
from skystill.train.networks.swift import Swift
from skystill.train.networks.unet import UNet

# The numbers of parameters are for the six classes of Dubai. CONTRIBUTING.md says how to add a network.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(UNet, channels=16, depth=5, norm=False),  # 1,941,190; the classical teacher
    "unet-bn": partial(UNet, channels=16, depth=5),  # 1,942,662; with BatchNorm, which trains better
    "unet-large": partial(UNet, channels=64, depth=4, stride=4),  # 7,732,256; takes half the time of unet
    "two-level": partial(UNet, channels=16, depth=2, norm=False),  # 25,766; the classical student
    # Channels are multiples of 16, because 8-bit kernels compute 16 at once. A student whose first level has 8 channels
    # is *slower* in INT8 than one with 16. Most of the time goes into the first level. Deep levels cost little time and
    # add most of the capacity.
    "kite-nano": partial(Kite, channels=(16, 16, 16), blocks=(0, 0, 1)),  # 28,128; the fastest
    "kite-tiny": partial(Kite, channels=(16, 16, 32), blocks=(1, 1, 1)),  # 53,952
    "kite-small": partial(Kite, channels=(16, 32, 48), blocks=(1, 1, 1)),  # 103,040
    "kite": partial(Kite, channels=(32, 64, 96), blocks=(1, 1, 1)),  # 393,376
    "swift-small": partial(Swift, channels=(16, 32, 48, 64), blocks=(0, 0, 1, 1), up_blocks=(0, 1, 1)),  # 229,720
    "swift": partial(Swift, channels=(16, 32, 64, 96), blocks=(0, 1, 1, 1), up_blocks=(1, 1, 1)),  # 445,848
    # Their encoders begin with weights of ImageNet (imagenet.py).
    "lite-small": partial(Lite, hidden=(16, 48, 80, 80)),  # 738,296; thinner at 1/2 and 1/4 of the resolution
    "lite": Lite,  # 751,928; the first eleven blocks of EfficientNet-Lite0
    "lite0": partial(LiteUNet, scale=(1.0, 1.0)),  # 3,839,288; the teachers
    "lite1": partial(LiteUNet, scale=(1.0, 1.1)),  # 4,603,960
    "lite2": partial(LiteUNet, scale=(1.1, 1.2)),  # 5,289,080
}
FAMILY = ("kite-nano", "kite-tiny", "kite-small", "kite", "swift-small", "swift", "lite")
"""The efficient students, the least capable one first. `lite` begins with weights of ImageNet."""

MAX_PARAMETERS = 500_000_000
"""Most learnt values of a network: 2 GB of weights, and 8 GB with their gradients and the state of the optimiser."""
_MOST = {"depth": 16, "stride": 64, "blocks": 256, "up_blocks": 256}
_MOST_CHANNELS, _MOST_LEVELS, _TEXT = 2**20, 16, 200  # numbers, so that not even the list of layers grows without end


def build_network(spec: str, num_classes: int, input_spec: InputSpec = RGB) -> nn.Module:
    """Build a network of the table with fresh weights. Its size is known, and checked, before it takes memory.

    Args:
        spec: a name of the table. Other sizes may follow a question mark: "unet?channels=32&depth=4". Values are Python
            literals. Or a network of another library (library.py), whose weights are not opened here.
        num_classes: C, channels of the logits.
        input_spec: what the network is fed.

    Raises:
        SettingsError: no network has this name, the network does not take these sizes, or it would have more than
            `MAX_PARAMETERS` learnt values.
    """
    declared_shapes(spec, num_classes, input_spec)
    return _construct(spec, num_classes, input_spec)


def declared_shapes(spec: str, num_classes: int, input_spec: InputSpec = RGB) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights and buffers that a network would have, by name. It takes no memory for them.

    Arguments and errors are those of `build_network`.
    """
    with torch.device("meta"):
        network = _construct(spec, num_classes, input_spec)
    if (count := count_parameters(network)) > MAX_PARAMETERS:
        raise SettingsError(
            f"network {spec[:_TEXT]!r} would have {count:,} parameters, which take {4 * count / 2**30:,.1f} GiB; up to "
            f"{MAX_PARAMETERS:,} were expected. Write smaller sizes, as in unet?channels=32&depth=4, or take a smaller "
            "encoder."
        )
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _construct(spec: str, num_classes: int, input_spec: InputSpec) -> nn.Module:
    if is_library(spec):
        return build_library(parse_library(spec), num_classes, input_spec)
    name, _, query = spec.partition("?")
    if name not in NETWORKS:
        known = ", ".join([*NETWORKS, *FORMS.values()])
        raise SettingsError(f"no network is called {name[:_TEXT]!r}; there are {known}.")
    try:
        sizes = {key: _literal(key, value) for key, value in parse_qsl(query, strict_parsing=bool(query))}
        return NETWORKS[name](num_classes, input_spec=input_spec, **sizes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"network {spec[:_TEXT]!r}: {error}. Write sizes as in unet?channels=32&depth=4."
        ) from error


def _literal(key: str, value: str) -> object:
    """A size as a Python value. Raises ValueError for text that is not a number, True, False or a tuple of these, and
    for sizes that no network has.
    """
    try:
        if len(value) > _TEXT:
            raise ValueError
        found: object = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{key} is {value[:_TEXT]!r}, which is not a number or a tuple of numbers") from error
    numbers = found if isinstance(found, tuple) else (found,)
    most = _MOST.get(key, _MOST_CHANNELS)
    if len(numbers) > _MOST_LEVELS or any(isinstance(one, int) and abs(one) > most for one in numbers):
        raise ValueError(f"{key} is {value}; up to {_MOST_LEVELS} numbers, each of them up to {most:,}, were expected")
    return found


def count_parameters(network: nn.Module) -> int:
    """The number of learnt values."""
    return sum(parameter.numel() for parameter in network.parameters())
