"""What stands around the pixels of an image: texts, metadata and further images, which GDAL reads when it opens a file.

A few megabytes of a PNG may be gigabytes of text, and 200 MB of metadata in a TIFF took 3 GB of memory and a minute. So
this is counted first, from the tables of the file alone.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Limits:
    """How much may stand around the pixels.

    Args:
        packed_bytes: compressed texts in a PNG. Each byte may be a thousand of text.
        metadata_bytes: texts and other metadata in a PNG or TIFF.
        chunks: chunks of a PNG. GDAL and Pillow write one for each 8 or 64 kB.
        images: images in a TIFF, overviews and masks included.
        behind_pixels: whether what follows the pixels of a PNG counts, too. GDAL reads it only with the last row.
    """

    packed_bytes: int
    metadata_bytes: int
    chunks: int
    images: int
    behind_pixels: bool


OF_FILES = Limits(packed_bytes=2**20, metadata_bytes=32 * 2**20, chunks=100_000, images=10_000, behind_pixels=False)
"""Limits of files on a disk: what they allow takes about half a gigabyte, or a second, at most."""
MOST_TAGS = 1_024
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_PALETTE = 3  # the type of its colours, the last of these bytes
_BITS, _PALETTE = 258, 320  # tags of TIFF: one value for each band, and the colours
_BYTES_OF_TYPE = {1: 1, 2: 1, 6: 1, 7: 1}  # BYTE, ASCII, SBYTE, UNDEFINED: what metadata are written in


def too_much_around(path: str | Path, limits: Limits = OF_FILES) -> str | None:
    """Say what there is too much of around the pixels of a PNG or TIFF.

    Args:
        path: a file of any kind. Other kinds, and damaged tables, are left to GDAL.
        limits: what may be there.

    Returns:
        What is wrong and how to mend it, or None.
    """
    with open(path, "rb") as file:
        head = file.read(8)
        if head == _PNG:
            return _of_png(file, limits)
        return _of_tiff(file, limits) if head[:4] in _TIFF else None


def has_palette(path: Path) -> bool | None:
    """Return whether a PNG or TIFF holds one band of indices into a palette of 256 colours, as class rasters do.

    Only its head is read: some 50 microseconds. None if it is of another kind, or damaged.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(26)
        if head[:8] == _PNG:
            return head[25] == _PNG_PALETTE if len(head) == 26 else None
        if head[:4] not in _TIFF:
            return None
        try:
            counts = {number: count for number, _, count in next(_tables(file))[1]}
        except (struct.error, StopIteration, ValueError):  # it was cut, or its places are none
            return None
    return counts.get(_BITS) == 1 and counts.get(_PALETTE) == 3 * 256 if counts else None


def _of_png(file: BinaryIO, limits: Limits) -> str | None:
    packed = texts = 0
    for number, (name, size, is_packed) in enumerate(_chunks(file)):
        if name == b"IDAT" and not limits.behind_pixels:
            return None
        if number >= limits.chunks:
            return f"it has more than {limits.chunks:,} chunks. Write it again with another program."
        packed += size if is_packed else 0
        texts += size if name not in (b"IDAT", b"IEND") else 0
        if packed > limits.packed_bytes or texts > limits.metadata_bytes:
            return _too_many_bytes(limits.packed_bytes if packed > limits.packed_bytes else limits.metadata_bytes)
    return None


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, bool]]:
    """Yield name and size of each chunk, and whether it is a compressed text."""
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        is_packed = name == b"zTXt"
        if name == b"iTXt":  # a keyword of at most 79 bytes, a zero, and whether it is compressed
            begin = file.read(min(size, 81))
            is_packed = begin.partition(b"\0")[2][:1] != b"\0"
            file.seek(-len(begin), 1)
        yield name, size, is_packed
        if name == b"IEND":  # what follows is not read
            return
        file.seek(size + 4, 1)


def _of_tiff(file: BinaryIO, limits: Limits) -> str | None:
    metadata = 0
    try:
        for number, (count, tags) in enumerate(_tables(file)):
            if number >= limits.images:
                return f"it has more than {limits.images:,} images. Use the first: gdal_translate IN OUT.tif."
            if count > MOST_TAGS:
                return f"it has {count:,} tags. Write it again: gdal_translate IN OUT.tif."
            metadata += sum(size * _BYTES_OF_TYPE.get(kind, 0) for _, kind, size in tags)
            if metadata > limits.metadata_bytes:
                return _too_many_bytes(limits.metadata_bytes)
    except (struct.error, OSError, ValueError):  # ValueError: a place beyond 2**63
        return None  # it was cut, or its places are none, which GDAL says
    return None


def _tables(file: BinaryIO) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """Yield how many tags each image has and, unless these are too many, number, type and count of values of each."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    count, entry, place = ("Q", "HHQ8x", "Q") if head[2:4] in (b"+\0", b"\0+") else ("H", "HHI4x", "I")

    def read(form: str) -> int:
        return int(struct.unpack(order + form, file.read(struct.calcsize(order + form)))[0])

    file.seek(8 if place == "Q" else 4)
    while at := read(place):
        file.seek(at)
        tags = read(count)
        content = file.read(tags * struct.calcsize(order + entry)) if tags <= MOST_TAGS else b""
        yield tags, list(struct.iter_unpack(order + entry, content))


def _too_many_bytes(most: int) -> str:
    return (
        f"it has more than {most // 2**10:,} kB of texts and metadata around its pixels. Write it again without them: "
        "gdal_translate -nomd IN OUT.tif."
    )
