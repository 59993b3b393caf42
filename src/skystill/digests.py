"""SHA-256 digests in SkyStill's own binary files, so that a damaged file is found before anything is read from it.

Three forms, none of which keeps another program from reading the file:

- a trailer: a line of text behind the content (checkpoints, entries of journals);
- a metadata property that stands last in an ONNX file: protocol buffers may be joined, so it is a trailer, too, and is
  found without the library onnx;
- an entry of the metadata of a safetensors file, over all bytes of the file with zeros in place of the digest.

Files of earlier versions and of other programs have no digest. They pass every check here.
"""

import errno
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KEY = "skystill_sha256"
"""Name of the property and of the entry."""
UNKNOWN = "0" * 64
"""What stands in the entry of a safetensors file until `seal_safetensors` writes the digest."""
_SIZE = 64
# As an entry of its own, or in an entry that is JSON itself, where quotes are escaped.
_ENTRY = re.compile(rb'\\?"' + KEY.encode() + rb'\\?": ?\\?"([0-9a-f]{64})\\?"')
_MOST_HEADER_BYTES = 100_000_000  # the limit of safetensors itself


class DigestDiffers(ValueError):
    """The content of a file is not what its digest says: some of its bytes have changed since it was written."""

    def __init__(self) -> None:
        super().__init__("its bytes have changed since it was written: they differ from the SHA-256 that it holds")


@dataclass(frozen=True)
class Trailer:
    """A digest at the end of a file, over all bytes before it.

    Args:
        before, after: the bytes around the digest, which is 64 hexadecimal digits.
    """

    before: bytes
    after: bytes

    def __len__(self) -> int:
        return len(self.before) + _SIZE + len(self.after)

    def of(self, content: bytes) -> bytes:
        """Return the trailer of a content."""
        return self.with_digest(hashlib.sha256(content).hexdigest())

    def with_digest(self, digest: str) -> bytes:
        """Return the trailer with a digest, 64 hexadecimal digits."""
        return self.before + digest.encode() + self.after

    def found(self, end: bytes) -> str | None:
        """Return the digest of a trailer at the end of some bytes, or None if there is none."""
        last = end[-len(self) :]
        if len(last) < len(self) or not (last.startswith(self.before) and last.endswith(self.after)):
            return None
        return last[len(self.before) : len(self.before) + _SIZE].decode("latin-1")

    def opened(self, content: bytes) -> memoryview:
        """Return a content without its trailer, checked.

        Raises:
            DigestDiffers: the content has changed.
        """
        digest = self.found(content)
        if digest is None:
            return memoryview(content)
        body = memoryview(content)[: -len(self)]
        if hashlib.sha256(body).hexdigest() != digest:
            raise DigestDiffers
        return body

    def check(self, path: Path) -> bool:
        """Check a file, and return whether it holds a digest. It is read in parts, not into memory.

        Raises:
            DigestDiffers: the content has changed.
        """
        with _opened(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - len(self)))
            digest = self.found(file.read())
            if digest is None:
                return False
            file.seek(0)
            if _digest_of(file, size - len(self)).hexdigest() != digest:
                raise DigestDiffers
        return True


TEXT_TRAILER = Trailer(b"\nskystill sha256 ", b"\n")
# ModelProto has the list of properties `metadata_props` as field 14, each a message of key (1) and value (2).
# 0x72: field 14, of 85 bytes; 0x0a: field 1, of 15 bytes; 0x12: field 2, of 66 bytes: a JSON text in quotes.
ONNX_TRAILER = Trailer(b"\x72\x55\x0a\x0f" + KEY.encode() + b'\x12\x42"', b'"')


class SealedWriter:
    """A file to write to that computes the digest of all that is written.

    A failure is kept in `failure`: libraries that are given such a file may raise something else.

    Args:
        file: an open binary file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        """Write all of a content, and return its size in bytes."""
        view = memoryview(content).cast("B")
        try:
            self._file.write(view)
        except OSError as error:
            self.failure = error
            raise
        self._hash.update(view)
        return len(view)

    def flush(self) -> None:
        """Write what the file holds back."""
        self._file.flush()

    def seal(self) -> None:
        """Write the trailer. Nothing may be written after it."""
        self._file.write(TEXT_TRAILER.with_digest(self._hash.hexdigest()))


def seal_safetensors(path: Path) -> None:
    """Write the digest into a safetensors file whose metadata hold the entry `KEY` with the value `UNKNOWN`."""
    with open(path, "r+b") as file:
        entry = _find_entry(file)
        assert entry is not None, "the entry is written by the caller"  # noqa: S101
        size = file.seek(0, 2)
        file.seek(0)
        digest = _digest_of(file, size).hexdigest()
        file.seek(entry[0])
        file.write(digest.encode())


def check_safetensors(path: Path) -> bool:
    """Check a safetensors file, and return whether it holds a digest. It is read in parts, not into memory.

    Raises:
        DigestDiffers: the file has changed.
    """
    with _opened(path) as file:
        entry = _find_entry(file)
        if entry is None:
            return False
        place, digest = entry
        size = file.seek(0, 2)
        file.seek(0)
        found = hashlib.sha256(file.read(place))
        found.update(UNKNOWN.encode())
        file.seek(place + _SIZE)
        _digest_of(file, size - place - _SIZE, found)
        if found.hexdigest() != digest:
            raise DigestDiffers
    return True


def check_once(path: Path, check: Callable[[Path], bool]) -> None:
    """Check a file, unless this process has checked it before and it has not been written since.

    Args:
        path: the file.
        check: `check_safetensors`, or `check` of a trailer.

    Raises:
        DigestDiffers: the file has changed.
        OSError: it cannot be read.
    """
    state = path.stat()
    seen = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
    if seen not in _SEEN:
        check(path)
        _SEEN.add(seen)


_SEEN: set[tuple[str, int, int, int]] = set()


def _opened(path: Path) -> BinaryIO:
    """Open a file to read it. Reading a named pipe or a device would never end.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder, a named pipe or a device, and no file")
    return open(path, "rb")


def _find_entry(file: BinaryIO) -> tuple[int, str] | None:
    """Return the offset of the digest in an open safetensors file, and the digest; None if there is none."""
    file.seek(0)
    count = int.from_bytes(file.read(8), "little")
    if count > _MOST_HEADER_BYTES:
        return None
    entry = _ENTRY.search(file.read(count))
    return None if entry is None else (8 + entry.start(1), entry[1].decode())


def _digest_of(file: BinaryIO, count: int, begun: "hashlib._Hash | None" = None) -> "hashlib._Hash":
    """Return the SHA-256 of the next `count` bytes of a file, behind what was hashed before."""
    digest = hashlib.sha256() if begun is None else begun
    buffer = memoryview(bytearray(min(count, 2**20)))
    while count > 0:
        read = file.readinto(buffer[: min(count, len(buffer))])  # type: ignore[attr-defined]
        if not read:
            break
        digest.update(buffer[:read])
        count -= read
    return digest


def file_sha256(path: Path) -> bytes:
    """Return the SHA-256 of the bytes of a file: 32 bytes. Raises OSError if it is missing or cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
