"""The files that an ONNX file names for its weights ("external data"), found without loading the model.

Older versions of ONNX Runtime, such as 1.20, open any path that is named there: the bytes of a password file become
weights. The package onnx, which checks the paths, is not installed where models only run. The format, Protocol Buffers,
is simple: fields with a number, of which those with a length hold texts, tensors and further messages.
"""

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

from skystill.digests import file_sha256
from skystill.errors import ModelFileError

# Numbers of the fields that hold messages, from onnx.proto. A message that is not listed holds no file name.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}
_SIZES = {1: 8, 5: 4, 3: 0, 4: 0}  # in bytes, of fields with a fixed size; 3 and 4 are the ends of a group
_TEXT_BYTES = 4096


def check_external_data(path: Path) -> None:
    """Check that an ONNX file takes its weights from itself, or from files beside it or in folders below.

    A file that is no ONNX file passes: opening it says so. Takes some milliseconds.

    Args:
        path: the file.

    Raises:
        ModelFileError: the file names a file elsewhere.
    """
    folders = path.parent.resolve(), path.resolve().parent  # of the file that is named, and of the one behind a link
    for location in external_data(path):
        found = None if not location or "\0" in location else (path.parent / location).resolve()
        if found is None or not any(map(found.is_relative_to, folders)):
            raise ModelFileError(
                f"{path} takes weights from {location[:200]!r}, which is not in its folder, so it is not opened. Write "
                "it in one file: onnx.save(onnx.load(FILE), OUT)."
            )


def model_files(path: Path) -> list[Path]:
    """Return a model file and the files that hold its weights, each once. Some of them may be missing.

    ONNX Runtime looks for them beside the name that it is given, also where that is a link to a file elsewhere.

    Raises:
        ModelFileError: as `check_external_data`.
    """
    check_external_data(path)
    return [path, *dict.fromkeys(path.parent / name for name in external_data(path))]


def model_digest(path: Path) -> str:
    """Return the SHA-256 of a model: of its file, or of the digests of its files if others hold its weights.

    Programs that keep weights in another file leave the model file as it is when only the weights change.

    Raises:
        ModelFileError: as `check_external_data`.
        OSError: a file is missing or cannot be read.
    """
    first, *others = map(file_sha256, model_files(path))
    return hashlib.sha256(b"".join([first, *others])).hexdigest() if others else first.hex()


def model_bytes(path: Path) -> int:
    """Return the size of a model in bytes, with the files that hold its weights. Raises as `model_files`."""
    return sum(one.stat().st_size for one in model_files(path) if one.is_file())


def external_data(path: Path) -> list[str]:
    """Return the names of files that an ONNX file names for its weights, as they are written."""
    if not path.is_file() or not path.stat().st_size:
        return []
    found: list[str] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        waiting = [("model", 0, len(content))]
        while waiting:
            kind, start, end = waiting.pop()
            keys: list[str] = []
            values: list[str] = []
            for number, first, last in _parts(content, start, end):
                inside = _FIELDS[kind].get(number)
                if inside in ("key", "value"):
                    text = content[first : min(last, first + _TEXT_BYTES)].decode("utf-8", "replace")
                    (keys if inside == "key" else values).append(text)
                elif inside:
                    waiting.append((inside, first, last))
            if "location" in keys:
                found.extend(values or [""])
    return found


def _parts(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, start and end of each field with a length. What cannot be parsed ends the message."""
    while at < end:
        tag, at = _number(content, at, end)
        kind = tag & 7
        if kind == 0:
            _, at = _number(content, at, end)
        elif kind == 2:
            size, at = _number(content, at, end)
            if at + size > end:
                return
            yield tag >> 3, at, at + size
            at += size
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            return


def _number(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, the lowest first. Returns it and the place behind it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value & (2**64 - 1), at
    return 0, end
