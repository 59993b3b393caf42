"""Weights that are part of the package, for a network to begin with: swift-small?weights=dubai."""

from importlib import resources
from pathlib import Path

from skystill.errors import SettingsError
from skystill.train.networks.library import OPTION, is_shipped, is_weights_file

WEIGHTS = {"swift-small": {"dubai": "begins with what it has learnt on aerial photographs of Dubai"}}
"""Networks to the names of their weights, and what they are. benchmarks/starting_weights.py makes the files."""


def find_weights(spec: str) -> Path | None:
    """Return the file of weights that a network begins with: one that the spec names, or one of the package.

    Args:
        spec: a value of `--network` or `--student`.

    Returns:
        None for a network whose weights come from elsewhere, or are random.

    Raises:
        SettingsError: the package has no such weights.
    """
    if is_shipped(spec):
        return _file_of(*spec.split(OPTION, 1))
    return Path(spec) if is_weights_file(spec) else None


def shipped_file(network: str, weights: str) -> Path:
    """Return the path of weights of the package. Their card lies beside them, as .md."""
    return Path(str(resources.files("skystill.model") / "weights" / f"{network}-{weights}.safetensors"))


def _file_of(network: str, weights: str) -> Path:
    if weights in WEIGHTS.get(network, {}):
        return shipped_file(network, weights)
    known = ", ".join(f"{name}{OPTION}{one}" for name, names in WEIGHTS.items() for one in names)
    asked = f"network {network[:100]}{OPTION}{weights[:100]}"
    if weights.endswith(".safetensors"):
        raise SettingsError(f"{asked}: name the file alone; it knows its network.")
    raise SettingsError(f"{asked}: SkyStill has no such weights. It has {known}, without other sizes.")
