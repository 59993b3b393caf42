"""Loader of the segmentation models of torchvision."""

import inspect

from skystill.train.libraries.imports import import_library, name_library_errors
from skystill.train.libraries.state import fill_weights, read_state
from skystill.train.teachers.loaders.loader import Loaded, Origin


def load_torchvision(origin: Origin) -> Loaded:
    """Build a segmentation model of torchvision by its name, and load its weights.

    The auxiliary classifier is built if the weights contain one.

    Raises:
        SettingsError: torchvision is not installed.
        CheckpointError: the model cannot be built, or the weights cannot be read or are of another network.
    """
    models = import_library("torchvision.models", "torchvision")
    state = read_state(origin.weights, f"teacher torchvision:{origin.target}")
    auxiliary = any(name.startswith("aux_classifier.") for name in state)
    sizes = {("num_classes" if name == "classes" else name): value for name, value in origin.sizes.items()}
    with name_library_errors(f"teacher torchvision:{origin.target}", "it cannot be built"):
        maker = models.get_model_builder(origin.target)
        if "aux_loss" in inspect.signature(maker).parameters:
            sizes["aux_loss"] = auxiliary
        network = maker(weights=None, weights_backbone=None, **sizes)
    fill_weights(network, origin.weights, f"teacher torchvision:{origin.target}")
    return Loaded(network, "imagenet")
