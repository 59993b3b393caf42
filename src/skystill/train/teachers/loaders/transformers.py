"""Loader of segmentation models of transformers, from a folder that save_pretrained wrote."""

import os
from pathlib import Path
from typing import Any

from skystill.errors import CheckpointError, SettingsError
from skystill.model.adapters import INPUT_SCALES, InputScale
from skystill.parsing import Refuse, built_from, read_json
from skystill.train.libraries.imports import import_library, name_library_errors
from skystill.train.teachers.loaders.loader import Loaded, Origin

_NAMES_OTHERS = ("adapter_config.json",)


def transformers_files(origin: Origin) -> list[Path]:
    """Return the files of the folder that decide what the network computes: JSON and safetensors.

    Raises:
        SettingsError: there is no such folder, or save_pretrained did not write it.
    """
    if not (origin.path / "config.json").is_file():
        raise SettingsError(
            f"teacher {origin.text!r}: {origin.target} holds no config.json; give a folder that save_pretrained wrote."
        )
    return sorted(path for path in origin.path.iterdir() if path.suffix in (".json", ".safetensors"))


def load_transformers(origin: Origin) -> Loaded:
    """Load a semantic segmentation model of transformers from a folder. Only safetensors weights are read.

    The input scale is that of preprocessor_config.json. Without this file it is that of ImageNet.

    Raises:
        SettingsError: transformers is not installed.
        CheckpointError: transformers cannot load the folder, or the folder names another model.
    """
    folder = origin.path
    for name in _NAMES_OTHERS:
        if (folder / name).exists():
            raise CheckpointError(
                f"teacher hf:{folder}: {name} names another model, which would be loaded too. Merge the two and save "
                "the whole: model.merge_and_unload().save_pretrained(DIR)."
            )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a config may name a backbone to download
    transformers = import_library("transformers", "transformers")
    with name_library_errors(f"teacher hf:{folder}", "transformers cannot load it"):
        network = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    scale = InputScale(255.0, INPUT_SCALES["imagenet"].mean, INPUT_SCALES["imagenet"].std)
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.is_file():
        refuse = _refusal(preprocessor)
        scale = built_from(read_json(preprocessor, refuse), _input_scale, refuse)
    return Loaded(network, multiple=32, scale=scale)


def _input_scale(said: dict[str, Any]) -> InputScale:
    divisor = 1 / float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if not said.get("do_normalize", True):
        return InputScale(divisor)
    imagenet = INPUT_SCALES["imagenet"]
    return InputScale(divisor, tuple(said.get("image_mean", imagenet.mean)), tuple(said.get("image_std", imagenet.std)))


def transformers_class_names(origin: Origin) -> tuple[str, ...] | None:
    """Return the class names in the config.json of the folder.

    Returns:
        The names in the order of the logits, or None if there are none or only placeholders such as LABEL_0.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    config = origin.path / "config.json"
    refuse = _refusal(config)
    found = built_from(read_json(config, refuse), _names, refuse)
    return None if not found or all(name == f"LABEL_{index}" for index, name in enumerate(found)) else found


def _names(config: dict[str, Any]) -> tuple[str, ...]:
    names: dict[str, object] = config.get("id2label", {})
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _refusal(path: Path) -> Refuse:
    return lambda reason: CheckpointError(f"teacher hf:{path.parent}: {path.name} cannot be read: {reason}.")
