"""Loader of programs that torch.export saved (.pt2). Loading one can run code that is in it: see `check_trust`."""

import io
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.train.libraries.archives import check_archive
from skystill.train.libraries.imports import name_library_errors
from skystill.train.teachers.loaders.loader import Loaded, Origin
from skystill.train.teachers.loaders.wrappers import fixed_or_free, one_by_one


def load_program(origin: Origin) -> Loaded:
    """Load a program that torch.export saved.

    Files with pickled objects are refused, but torch.export documents its loader as unsafe, and nobody could list all
    ways in which such a file can run code. Therefore the user must say that the file is trusted.

    Raises:
        SettingsError: the user has not said that the file is trusted.
        CheckpointError: the file contains pickled objects, unpacks to too much, or torch.export cannot load it.
    """
    path = origin.path
    check_trust(origin)
    check_archive(path)
    _refuse_pickles(path)
    with name_library_errors(f"teacher {path}", "torch.export cannot load it"):
        program = torch.export.load(path)
        network = program.module()
        shape = next(iter(program.graph_signature.user_inputs))
        sizes = next(n.meta["val"].shape for n in program.graph.nodes if n.name == shape)
    height, width = (size if isinstance(size, int) else None for size in sizes[2:])
    frozen = _Called(network)
    return Loaded(fixed_or_free(one_by_one(frozen, sizes[0]), height, width))


def check_trust(origin: Origin) -> None:
    """Refuse a program unless the user has said that it is trusted. Nothing of the file is opened.

    Raises:
        SettingsError: the user has not said it.
    """
    if not origin.trusted:
        onnx = Path(origin.target).with_suffix(".onnx")
        raise SettingsError(
            f"teacher {origin.text!r}: loading a .pt2 file can run code that is in it. torch.export evaluates "
            "expressions, unpickles objects and loads compiled libraries from it. Where the file comes from, make an "
            f"ONNX file of it, which holds no code: torch.onnx.export(torch.export.load('{origin.target}'), "
            f"f='{onnx}', dynamo=True); or save the weights of the network with safetensors and give them to smp: or "
            "torchvision:. If you made the file yourself, or trust who made it as you trust a program: --trust-teacher."
        )


class _Called(nn.Module):
    """Adapter of an exported program, which has no train and eval modes."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._program = [program]  # in a list, so that it is no submodule: its train() raises an error
        for name, parameter in program.named_parameters():
            self.register_parameter(name.replace(".", "_"), parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W), converted to float, to the output of the program."""
        found: Tensor = self._program[0](images.float())
        return found


def _refuse_pickles(path: Path) -> None:
    """Refuse an archive with objects that can only be unpickled.

    Raises:
        CheckpointError: the file contains such objects, or is not an archive.
    """
    with name_library_errors(f"teacher {path}", "it is no torch.export archive"), zipfile.ZipFile(path) as archive:
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
