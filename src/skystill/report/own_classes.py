"""The classes with which the masks of data are read that a run may or may not have been trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skystill.classes import ClassMap
from skystill.data import Pair, resolve_classes
from skystill.data.check import classes_file
from skystill.run_folder import is_own_data


def own_classes(config: Mapping[str, Any], data: Path, pairs: Sequence[Pair]) -> ClassMap | None:
    """Return the classes of data: those that the run was given for its own data, or those that lie beside other data.

    Args:
        config: settings of the run; empty if there is none.
        data: the data folder, or a catalogue.
        pairs: its pairs.

    Returns:
        None if neither the run nor the data has a classes file.

    Raises:
        ClassesError: the file cannot be read.
    """
    given, beside = config.get("classes"), classes_file(data)
    if given is None and beside is None:
        return None
    return resolve_classes(data, given if beside is None or is_own_data(config, data) else None, pairs)[0]
