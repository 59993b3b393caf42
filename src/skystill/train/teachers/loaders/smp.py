"""Loader of the architectures of segmentation_models_pytorch."""

from skystill.errors import SettingsError
from skystill.train.libraries.imports import import_library, name_library_errors
from skystill.train.libraries.state import fill_weights
from skystill.train.teachers.loaders.loader import Loaded, Origin


def load_smp(origin: Origin) -> Loaded:
    """Build an architecture of segmentation_models_pytorch and load its weights.

    The target is ARCHITECTURE/ENCODER. The encoder is resnet34 by default.

    Raises:
        SettingsError: the library is not installed, or it has no such architecture.
        CheckpointError: the network cannot be built, or the weights cannot be read or are of another network.
    """
    smp = import_library("segmentation_models_pytorch", "segmentation-models-pytorch")
    architecture, _, encoder = origin.target.partition("/")
    if not hasattr(smp, architecture):
        raise SettingsError(f"teacher smp:{origin.target}: segmentation_models_pytorch has no {architecture}.")
    sizes = {"in_channels": len(origin.input_spec), **origin.sizes}
    with name_library_errors(f"teacher smp:{origin.target}", "it cannot be built"):
        network = getattr(smp, architecture)(encoder_name=encoder or "resnet34", encoder_weights=None, **sizes)
    fill_weights(network, origin.weights, f"teacher smp:{origin.target}")
    return Loaded(network, "imagenet" if len(origin.input_spec) == 3 else "0..1", multiple=32)
