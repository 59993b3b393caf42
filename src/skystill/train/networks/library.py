"""Networks of other libraries by name: `timm:NAME` and `smp:ARCHITECTURE/ENCODER`, with weights behind `?weights=`."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl

from skystill.errors import SettingsError
from skystill.raster.files import special_kind
from skystill.train.libraries.imports import import_library

FORMS = {
    "timm": "timm:NAME?weights=FILE",
    "smp": "smp:ARCHITECTURE/ENCODER?weights=FILE",
}
"""How the networks of each library are written."""
LIBRARIES = {
    "timm": "any encoder of timm that gives maps of features, with a light decoder",
    "smp": "any network of segmentation_models_pytorch that takes images of any size",
}
"""What each of them is, in words."""
OPTION = "?weights="
"""Stands between the name of a network and the weights that it begins with."""
IMAGENET = "imagenet"
"""The value of `weights` that lets the library fetch its own weights."""
_PACKAGES = {
    "timm": ("timm", "timm"),
    "smp": ("segmentation_models_pytorch", "segmentation-models-pytorch"),
}
_LONGEST, _NEAR = 200, 5


@dataclass(frozen=True)
class LibraryName:
    """The parsed name of a network of another library.

    Args:
        library: "timm" or "smp".
        target: what the library calls it.
        weights: a file, `IMAGENET`, or nothing for random weights.
    """

    library: str
    target: str
    weights: str = ""

    @property
    def name(self) -> str:
        """The name without its weights: all that is needed to build the network again."""
        return f"{self.library}:{self.target}"


def is_library(spec: str) -> bool:
    """Whether a value of `--network` names a network of another library."""
    return spec.partition(":")[0] in FORMS


def is_weights_file(spec: str) -> bool:
    """Whether a value of `--network` is a file of weights of SkyStill."""
    return spec.endswith(".safetensors") and not is_library(spec) and not is_shipped(spec)


def is_shipped(spec: str) -> bool:
    """Whether a value of `--network` asks for weights that are part of the package (shipped.py)."""
    return OPTION in spec and not is_library(spec)


def shown_name(spec: str) -> str:
    """The name of a network for messages: without the weights that it begins with."""
    return spec.partition("?")[0] if is_library(spec) or is_shipped(spec) else spec


def parse_library(spec: str) -> LibraryName:
    """Read a value of `--network`. Nothing is imported or opened.

    Raises:
        SettingsError: an option is not known, stands there twice or is empty, or nothing is named.
    """
    before, _, query = spec.partition("?")
    library, _, target = before.partition(":")
    form = FORMS[library]
    if not target or len(target) > _LONGEST or (library == "smp" and not target.partition("/")[2]):
        raise SettingsError(f"network {spec[:_LONGEST]!r} names no network of {library}; expected is {form}.")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if "?" in spec else []
    except ValueError as error:
        raise SettingsError(f"network {spec[:_LONGEST]!r}: {error}. Write {form}.") from error
    if unknown := [key for key, _ in pairs if key != "weights"]:
        raise SettingsError(
            f"network {before}: there is no option {', '.join(unknown)}; there is weights. Write {form}."
        )
    if len(pairs) > 1:
        raise SettingsError(f"network {before}: weights stands there {len(pairs)} times; write it once.")
    weights = pairs[0][1] if pairs else ""
    if pairs and not weights:
        raise SettingsError(f"network {before}: weights= is empty. Give a file or {IMAGENET}, or leave it out.")
    return LibraryName(library, target, weights)


def check_weights(name: LibraryName) -> None:
    """Check that the weights are a file, if one is named.

    Raises:
        SettingsError: they are not.
    """
    weights = name.weights
    if weights in ("", IMAGENET) or Path(weights).is_file():
        return
    found = special_kind(weights) or ("a folder" if Path(weights).is_dir() else "no such file")
    raise SettingsError(f"network {name.name}: weights={weights}: {found}. Give a .safetensors or .pt file of weights.")


def find_library(name: LibraryName) -> ModuleType:
    """Import the library, and check that it has the network.

    Raises:
        LibraryMissing: the library is not installed.
        SettingsError: it has no such network. The message gives the nearest names.
    """
    module = import_library(*_PACKAGES[name.library], whose=f"network {name.name}")
    if name.library == "timm":
        _check_timm(module, name.target, name.name)
        return module
    architecture, _, encoder = name.target.partition("/")
    architectures = module.MODEL_ARCHITECTURES_MAPPING
    if architecture.lower() not in architectures:
        known = [one.__name__ for one in architectures.values()]
        raise SettingsError(
            f"network {name.name}: segmentation_models_pytorch has no architecture {architecture!r}; "
            f"it has {', '.join(known)}."
        )
    if encoder.startswith("tu-"):
        _check_timm(import_library(*_PACKAGES["timm"], whose=f"network {name.name}"), encoder[3:], name.name)
    elif encoder not in module.encoders.get_encoder_names():
        near = _near(encoder, module.encoders.get_encoder_names())
        raise SettingsError(
            f"network {name.name}: segmentation_models_pytorch has no encoder {encoder!r}; near it are {near}. Write "
            f"{FORMS['smp']}, with an encoder of timm as tu-NAME."
        )
    return module


def _check_timm(timm: ModuleType, wanted: str, name: str) -> None:
    """Check that timm has an encoder, and weights under the tag behind a dot if there is one."""
    architecture, _, tag = wanted.partition(".")
    if not timm.is_model(architecture):
        raise SettingsError(
            f"network {name}: timm {timm.__version__} has no encoder {architecture!r}; near it are "
            f"{_near(architecture, timm.list_models())}."
        )
    if tag and wanted not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise SettingsError(
            f"network {name}: timm {timm.__version__} knows no weights {tag!r} of {architecture}; it knows "
            f"{', '.join(tagged[:_NEAR]) or 'none'}."
        )


def _near(wanted: str, names: Iterable[str]) -> str:
    known = sorted(names)
    return ", ".join(difflib.get_close_matches(wanted, known, n=_NEAR, cutoff=0.3) or known[:_NEAR])
