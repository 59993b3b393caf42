"""Entries of the journal of a prediction: the arrays of one unit, packed, with a digest; and what it was begun with."""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.digests import TEXT_TRAILER, DigestDiffers
from skystill.errors import RunFolderError
from skystill.parsing import read_json
from skystill.run_folder import naming_failed_writes, write_json
from skystill.unfinished import part_of

SETTINGS = "settings.json"
"""Name of the file of a journal that says what it was begun with."""
_DIGEST = "_sha256"

_HEAD = struct.Struct("<cQ")
_BESIDE = 2**16  # most bytes of an entry beside its pixels, which deflate makes hardly longer


def pack_entry(arrays: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Return the bytes of an entry that holds these arrays."""
    content = b"".join(_pack(array) for array in arrays)
    return content + TEXT_TRAILER.of(content)


def entry_path(journal: Path, index: int) -> Path:
    """Return the file of the entry of a unit."""
    return journal / f"{index:08d}.unit"


def write_entry(journal: Path, index: int, arrays: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Write an entry beside other processes, also of other machines, that write into the same journal.

    Args:
        journal: the folder of the journal. It is not made: whoever deleted it has no use for the entry.
        index: index of the unit.
        arrays: its arrays.

    Returns:
        the bytes of the entry.

    Raises:
        DiskFull: the entry cannot be written, or the journal has gone.
    """
    path, content = entry_path(journal, index), pack_entry(arrays)
    part = part_of(path)
    try:
        with naming_failed_writes(path):
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return content


def read_settings(journal: Path) -> dict[str, Any]:
    """Return what a journal was begun with, or an empty dictionary if there is none.

    Raises:
        RunFolderError: the file is damaged.
    """
    about = journal / SETTINGS
    if not about.exists():
        return {}

    def refuse(reason: str) -> RunFolderError:
        return RunFolderError(f"{about} is damaged: {reason}. Delete {journal} and begin again.")

    content = read_json(about, refuse)
    if not isinstance(content, dict):
        raise refuse("it holds no settings")
    digest = content.pop(_DIGEST, None)
    if digest not in (None, _settings_digest(content)):
        raise refuse(str(DigestDiffers()))
    return content


def write_settings(journal: Path, settings: Mapping[str, Any]) -> None:
    """Write what a journal is begun with."""
    write_json(journal / SETTINGS, {**settings, _DIGEST: _settings_digest(json.loads(json.dumps(settings)))})


def check_settings(before: Mapping[str, Any], settings: Mapping[str, Any], target: Path, journal: Path) -> None:
    """Check that a journal was begun with the same settings. Keys that begin with "_" may differ.

    Args:
        before: what the journal was begun with.
        settings: what it would be continued with.
        target: the raster that is predicted, for messages.
        journal: the folder of the journal, for messages.

    Raises:
        RunFolderError: something differs.
    """
    now = json.loads(json.dumps(settings))
    changed = [key for key in now if not key.startswith("_") and before.get(key) != now[key]]
    if "source_state" in changed and "source" not in changed:
        raise RunFolderError(
            f"{now['source']}, or a file that it is made of, has changed since the prediction of {target} was "
            f"interrupted: the result would be a mixture of old and new. Bring the old file back, or delete {journal} "
            "to begin again."
        )
    if changed:
        raise RunFolderError(
            f"the interrupted prediction of {target} had other settings ({', '.join(changed)}). Use the same ones, or "
            f"delete {journal} to begin again."
        )


def _settings_digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
