"""Loader of SkyStill runs."""

from pathlib import Path

from skystill.raster.input_spec import InputSpec
from skystill.run_folder import RunFolder
from skystill.train.networks.weights import read_network, read_record
from skystill.train.teachers.loaders.loader import Loaded, Origin


def run_files(origin: Origin) -> list[Path]:
    """Return the weights file of the run."""
    return [RunFolder(origin.path).weights]


def run_class_names(origin: Origin) -> tuple[str, ...]:
    """Return the names of the classes that the run was trained on."""
    return read_record(run_files(origin)[0]).classes.names


def run_input_spec(origin: Origin) -> InputSpec:
    """Return what the network of the run is fed."""
    return read_record(run_files(origin)[0]).input_spec


def load_run(origin: Origin) -> Loaded:
    """Load the network of a run with its trained weights."""
    return Loaded(read_network(run_files(origin)[0])[0], "0..255")
