"""The states of a raster that is not open, by which a later command knows whether it is still the same."""

import os

from skystill.raster.opening import is_remote
from skystill.raster.overwriting import source_files
from skystill.raster.remote_states import files_on_servers
from skystill.raster.states import FileStates


def source_states(source: str, overviews: bool = True) -> FileStates:
    """Return the states of all files of a raster, such as a world file.

    Args:
        source: anything that GDAL opens. Of a raster on a server, the files beside it are left out.
        overviews: whether overviews count. Somebody may make them later.
    """
    if is_remote(source):
        return FileStates(files_on_servers(source))
    return FileStates(os.fspath(path) for path in source_files(source) if overviews or path.suffix.lower() != ".ovr")
