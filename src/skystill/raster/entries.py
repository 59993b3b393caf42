"""Entries of the journal of a prediction: the arrays of one unit, packed, with a digest."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.digests import TEXT_TRAILER

_HEAD = struct.Struct("<cQ")
_BESIDE = 2**16  # most bytes of an entry beside its pixels, which deflate makes hardly longer


def pack_entry(arrays: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Return the bytes of an entry that holds these arrays."""
    content = b"".join(_pack(array) for array in arrays)
    return content + TEXT_TRAILER.of(content)


def read_entry(path: Path, sizes: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    """Return the arrays of an entry, each in one dimension. Entries of earlier versions have no digest.

    Args:
        path: the file of the entry.
        sizes: number of bytes of each array in it. A damaged entry may declare gigabytes.

    Raises:
        DigestDiffers: the bytes have changed.
        ValueError, struct.error, zlib.error: they are no entry of these sizes.
        OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder, a named pipe or a device, and no file")
    most = 2 * sum(sizes) + _BESIDE
    if path.stat().st_size > most:
        raise ValueError(f"it has {path.stat().st_size:,} bytes; at most {most:,} were expected")
    content = TEXT_TRAILER.opened(path.read_bytes())
    arrays = []
    for size in sizes:
        array, content = _unpack(content, size)
        arrays.append(array)
    return arrays


def _pack(array: npt.NDArray[np.uint8]) -> bytes:
    """Encode an array as bytes for the journal.

    Class maps consist of long runs of equal bytes. The values and the lengths of these runs are stored. If they would
    take a quarter of the raw size or more, the array is compressed with deflate instead. Finding the runs takes a fifth
    of the time of deflate, and the journal is kept only for minutes.
    """
    flat = array.reshape(-1)
    changes = flat[1:] != flat[:-1]
    if 5 * (1 + np.count_nonzero(changes)) < flat.size // 4:  # counted first: their places take 8 bytes each
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.uint32)
        body = flat[starts].tobytes() + np.diff(starts, append=np.uint32(flat.size)).astype(np.uint32).tobytes()
        return _HEAD.pack(b"R", len(body)) + body
    body = zlib.compress(np.ascontiguousarray(flat).data, 1)
    return _HEAD.pack(b"Z", len(body)) + body


def _unpack(content: memoryview, expected: int) -> tuple[npt.NDArray[np.uint8], memoryview]:
    """Return the first array, as one dimension of an expected size, and the bytes that follow it."""
    kind, size = _HEAD.unpack_from(content)
    body, rest = content[_HEAD.size : _HEAD.size + size], content[_HEAD.size + size :]
    if kind == b"Z":
        array = np.frombuffer(zlib.decompressobj().decompress(body, expected + 1), np.uint8)
    else:
        count = size // 5
        lengths = np.frombuffer(body[count:], np.uint32)
        array = np.frombuffer(body[:count], np.uint8)
        array = np.repeat(array, lengths) if int(lengths.sum(dtype=np.uint64)) == expected else array[:0]
    if array.size != expected:
        raise ValueError(f"it holds another number of pixels than {expected:,}")
    return array, rest
