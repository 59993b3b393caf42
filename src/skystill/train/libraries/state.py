"""Reading of weights that other programs saved, without running code from the file."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from skystill.errors import CheckpointError
from skystill.train.libraries.archives import check_archive
from skystill.train.libraries.imports import first_line

_NAMED = 3  # problems in a message


def read_state(path: Path, whose: str) -> dict[str, Tensor]:
    """Read weights from a safetensors file, or from a torch.save file that loads without unpickling objects.

    Weights under "state_dict" (as in a Lightning checkpoint), "model_state_dict" or "model" are found. A prefix
    "module." or "model." that all names share is removed.

    Args:
        path: the file.
        whose: the teacher or the network, for messages.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        CheckpointError: the file cannot be read, holds no weights, can only be unpickled, or unpacks to too much.
    """
    check_archive(path)
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{whose}: {path} holds more than weights, and loading it could run code. Save its state_dict: "
            "torch.save(model.state_dict(), FILE), or as safetensors."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{whose}: {path} cannot be read ({first_line(error)}).") from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{whose}: {path} holds no state_dict.")
    state: dict[str, Tensor] = content
    for prefix in ("module.", "model."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def fill_weights(network: nn.Module, weights: Path, whose: str) -> None:
    """Load a file of weights into a network, in place.

    Args:
        network: gets the weights.
        weights: the file.
        whose: the teacher or the network, for messages.

    Raises:
        CheckpointError: `read_state` cannot read the file, or the weights are of another network.
    """
    try:
        network.load_state_dict(read_state(weights, whose))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(f"{whose}: {weights} is of another network: {' '.join(lines)[:400]}") from error


def misfits(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    """Compare weights with the names and shapes that a network expects.

    Returns:
        One phrase for each weight that does not fit, those that are missing first. Empty if all fit.
    """
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} belongs to another network" for key in state if key not in expected]
    problems += [
        f"{key} has the shape {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    return problems


def first_of(problems: Sequence[str]) -> str:
    """The first three problems in one line."""
    return "; ".join(problems[:_NAMED]) + ("; ..." if len(problems) > _NAMED else "")
