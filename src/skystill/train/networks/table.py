"""The table of networks: a name and sizes to a network with fresh weights."""

import ast
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl

from torch import nn

from skystill.errors import SettingsError
from skystill.train.networks.kite import Kite
from skystill.train.networks.swift import Swift
from skystill.train.networks.unet import UNet

# The table of sizes; parameters are for the six classes of Dubai. To add a network: a line here and, where it is a new
# kind, a class above; tests/train/networks/test_networks.py puts every line of this table through the same contract.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(UNet, channels=16, depth=5, norm=False),  # 1,941,190: the mission's teacher
    "unet-bn": partial(UNet, channels=16, depth=5),  # 1,942,662: the same with BatchNorm, which trains better
    "unet-large": partial(UNet, channels=64, depth=4, stride=4),  # 7,732,256: many weights in half unet's time
    "two-level": partial(UNet, channels=16, depth=2, norm=False),  # 25,766: the mission's student
    # Widths are multiples of 16, as many as 8-bit kernels take at once: of 8 first channels a student is *slower* in
    # INT8 than of 16. Time is made at the first level; deep levels are nearly free, and buy what a student can hold.
    "kite-nano": partial(Kite, channels=(16, 16, 16), blocks=(0, 0, 1)),  # 28,128: the fastest
    "kite-tiny": partial(Kite, channels=(16, 16, 32), blocks=(1, 1, 1)),  # 53,952
    "kite-small": partial(Kite, channels=(16, 32, 48), blocks=(1, 1, 1)),  # 103,040
    "kite": partial(Kite, channels=(32, 64, 96), blocks=(1, 1, 1)),  # 393,376
    "swift-small": partial(Swift, channels=(16, 32, 48, 64), blocks=(0, 0, 1, 1), up_blocks=(0, 1, 1)),  # 229,720
    "swift": partial(Swift, channels=(16, 32, 64, 96), blocks=(0, 1, 1, 1), up_blocks=(1, 1, 1)),  # 445,848
}
FAMILY = ("kite-nano", "kite-tiny", "kite-small", "kite", "swift-small", "swift")
"""The efficient students, the least capable first."""


def build_network(spec: str, num_classes: int) -> nn.Module:
    """Build a network of the table with fresh weights.

    Args:
        spec: a name of the table, with other sizes behind a question mark where they are wanted:
            "unet?channels=32&depth=4". Values are Python literals.
        num_classes: C, channels of the logits.

    Raises:
        SettingsError: no network has this name, or it does not take these sizes.
    """
    name, _, query = spec.partition("?")
    if name not in NETWORKS:
        raise SettingsError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}.")
    try:
        sizes = {key: ast.literal_eval(value) for key, value in parse_qsl(query, strict_parsing=bool(query))}
        return NETWORKS[name](num_classes, **sizes)
    except (TypeError, ValueError, SyntaxError, RuntimeError) as error:
        raise SettingsError(f"network {spec!r}: {error}. Write sizes as in unet?channels=32&depth=4.") from error


def count_parameters(network: nn.Module) -> int:
    """Number of learnt values."""
    return sum(parameter.numel() for parameter in network.parameters())
