"""GDAL's own functions in C, which rasterio brings with it and does not offer: they list, copy, and ask servers."""

import ctypes
import functools
from typing import Any

from rasterio import _env  # the part of rasterio that is linked with GDAL
from rasterio.env import ensure_env_with_credentials

from skystill.errors import SettingsError


class Entry(ctypes.Structure):
    """The beginning of GDAL's VSIDIREntry."""

    _fields_ = (("name", ctypes.c_char_p), ("mode", ctypes.c_int))


@ensure_env_with_credentials  # type: ignore[untyped-decorator]  # as rasterio.open does
def with_credentials(address: str, call: Any, *arguments: Any) -> Any:  # noqa: ANN401
    """Call a function with the credentials for an address, which rasterio finds by it.

    Args:
        address: the address, as the user named it.
        call: the function. It is given the GDAL library, and the arguments.
        arguments: its arguments.

    Raises:
        SettingsError: this build of rasterio does not offer GDAL's functions.
    """
    library = _gdal()
    library.VSIErrorReset()
    library.CPLErrorReset()
    return call(library, *arguments)


@functools.cache
def _gdal() -> Any:  # noqa: ANN401 - a library has the functions that it has
    """Return the GDAL library that rasterio uses.

    Raises:
        SettingsError: its functions cannot be found through rasterio.
    """
    library = ctypes.CDLL(_env.__file__)
    try:
        library.VSIOpenDir.restype = ctypes.c_void_p
        library.VSIOpenDir.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
        library.VSIGetNextDirEntry.restype = ctypes.POINTER(Entry)
        library.VSIGetNextDirEntry.argtypes = [ctypes.c_void_p]
        library.VSICloseDir.argtypes = [ctypes.c_void_p]
        library.CPLCopyFile.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        library.VSINetworkStatsGetAsSerializedJSON.restype = ctypes.c_void_p
        library.VSINetworkStatsGetAsSerializedJSON.argtypes = [ctypes.c_void_p]
        library.VSIFree.argtypes = [ctypes.c_void_p]
        library.VSINetworkStatsReset.restype = None
        library.VSIFOpenL.restype = ctypes.c_void_p
        library.VSIFOpenL.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        library.VSIFSeekL.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int]
        library.VSIFTellL.restype = ctypes.c_uint64
        library.VSIFTellL.argtypes = library.VSIFCloseL.argtypes = [ctypes.c_void_p]
        library.VSIUnlink.argtypes = [ctypes.c_char_p]
        library.VSIGetFileMetadata.restype = ctypes.POINTER(ctypes.c_char_p)
        library.VSIGetFileMetadata.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        library.VSICurlClearCache.restype = library.VSICurlPartialClearCache.restype = None
        library.VSICurlPartialClearCache.argtypes = [ctypes.c_char_p]
        library.CSLDestroy.restype = None
        library.CSLDestroy.argtypes = [ctypes.c_void_p]
        library.VSIGetLastErrorMsg.restype = library.CPLGetLastErrorMsg.restype = ctypes.c_char_p
    except AttributeError as error:  # on Windows, a library does not show those that it is linked with
        raise SettingsError(
            f"this build of rasterio does not offer what lists and writes buckets ({error}). Name each object of a "
            "bucket as an input of its own, and write to a local folder."
        ) from error
    return library
