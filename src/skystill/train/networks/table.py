"""The table of networks: builds a network with fresh weights from a name and sizes."""

import ast
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl

from torch import nn

from skystill.errors import SettingsError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.kite import Kite
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
}
FAMILY = ("kite-nano", "kite-tiny", "kite-small", "kite", "swift-small", "swift")
"""The efficient students, the least capable one first."""


def build_network(spec: str, num_classes: int, input_spec: InputSpec = RGB) -> nn.Module:
    """Build a network of the table with fresh weights.

    Args:
        spec: a name of the table. Other sizes may follow a question mark: "unet?channels=32&depth=4". Values are Python
            literals.
        num_classes: C, channels of the logits.
        input_spec: what the network is fed.

    Raises:
        SettingsError: no network has this name, or the network does not take these sizes.
    """
    name, _, query = spec.partition("?")
    if name not in NETWORKS:
        raise SettingsError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}.")
    try:
        sizes = {key: _literal(key, value) for key, value in parse_qsl(query, strict_parsing=bool(query))}
        return NETWORKS[name](num_classes, input_spec=input_spec, **sizes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(f"network {spec!r}: {error}. Write sizes as in unet?channels=32&depth=4.") from error


def _literal(key: str, value: str) -> object:
    """A size as a Python value. Raises ValueError for text that is not a number, True, False or a tuple of these."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{key} is {value!r}, which is not a number or a tuple of numbers") from error


def count_parameters(network: nn.Module) -> int:
    """The number of learnt values."""
    return sum(parameter.numel() for parameter in network.parameters())
